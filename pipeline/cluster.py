"""Runs tasks in Dask worker processes, or in this process without workers. The only module that imports Dask."""

import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import uuid4

from . import worker_check
from .errors import AffectError, ProcessError
from .storage.atomic import temp_path, unwritable

if TYPE_CHECKING:
    from distributed import Client

Item = TypeVar("Item")
Result = TypeVar("Result")

DEATHS = 2
"""Workers that one task may kill before it is reported as failed."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
SHOWN = 8
"""Problems of workers that one message lists."""
SAME = (
    "Install the same version of affect on all machines and start the workers again, and give --data and --work paths "
    "that are valid on all machines."
)
KEPT = {"MALLOC_ARENA_MAX": 1, "MALLOC_TRIM_THRESHOLD_": 1 << 30, "MALLOC_MMAP_THRESHOLD_": 1 << 30}
"""Memory settings of workers: keep freed memory, in one heap for all threads. With the settings of Dask, networks
return freed memory to the system and get it back page by page (see keep_freed_memory in learning/runtime.py)."""


@dataclass(frozen=True)
class Shared:
    """What the workers of a scheduler must share with this process: the same folder, which they write to, and the same
    input files and weights. warn: receives warnings about workers."""

    folder: Path
    reads: Sequence[Path]
    weights: Sequence[Path]
    warn: Callable[[str], None]


def worker_count(setting: int, cores: int = 2) -> int:
    """Number of worker processes for runtime.workers; -1: one for every two (`cores`) cores, at least one."""
    if setting >= 0:
        return setting
    from dask.system import CPU_COUNT

    return max(1, CPU_COUNT // cores)


def worker_number() -> int:
    """Number of this process among the workers of this machine, from 0; 0 if it is not a worker."""
    if "distributed" not in sys.modules:
        return 0
    from distributed import get_worker

    try:
        name = get_worker().name
    except ValueError:  # not a worker
        return 0
    return name if isinstance(name, int) else 0


def worker_slots(workers: int, scheduler: str | None) -> int:
    """Number of tasks that run at the same time: `workers`, or the threads of the workers of the scheduler. Raises
    AffectError."""
    if scheduler is None:
        return workers
    with _client(0, scheduler, 1) as client:
        return sum(cast(dict[str, int], client.nthreads()).values())


def run_tasks(
    task: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int,
    scheduler: str | None = None,
    threads: int = 1,
    on_result: Callable[[Item, Result], Sequence[Item] | None],
    on_error: Callable[[Item, str], Sequence[Item] | None] | None = None,
    shared: Shared | None = None,
) -> None:
    """Calls task(item) for each item and passes the result to on_result(item, result) in this process.

    Tasks start in the order of `items`, and results arrive as they are ready. on_result and on_error may return more
    items. workers: processes on this machine; 0 runs the tasks in this process. scheduler: the address of a Dask
    scheduler to use instead. threads: how many threads torch uses in each worker. Items, results and task must pickle.

    shared: what the workers of the scheduler must share with this process. If one that is there at the start does not,
    AffectError names it, and no task runs. One that joins later gets no more tasks, with a warning.

    An exception in a task is raised here. If an item kills its worker too often, on_error(item, reason) is called;
    without on_error, AffectError is raised. AffectError is also raised if the scheduler is lost.
    """
    if not items:
        return
    if not workers and scheduler is None:
        left = deque(items)
        while left:
            item = left.popleft()
            left.extend(on_result(item, task(item)) or ())
        return
    from distributed import KilledWorker, as_completed
    from distributed.client import FutureCancelledError
    from distributed.comm.core import CommClosedError

    with (
        _client(min(workers, len(items)), scheduler, threads) as client,
        _requirements(client, scheduler, shared) as needed,
    ):
        call = worker_check.admitted(needed, threads, task)
        futures = client.map(call, items, pure=False, batch_size=len(items))
        item_of = {future.key: item for future, item in zip(futures, items, strict=True)}
        done = as_completed(futures, loop=client.loop, raise_errors=False)
        # Only as_completed keeps the futures now. A worker drops a result when its future is deleted.
        del futures
        for future in done:
            item = item_of.pop(future.key)
            try:
                error = future.exception()
                refusal, result = (None, None) if error else future.result()
            except (FutureCancelledError, CommClosedError) as closed:
                raise _lost(scheduler) from closed
            if refusal and shared:
                _retire(client, {refusal["address"]: refusal}, shared.warn)
                more: Sequence[Item] | None = [item]
            elif error is None:
                more = on_result(item, cast(Result, result))
            elif not isinstance(error, KilledWorker):
                raise error
            else:
                died = f"its worker process died {error.allowed_failures + 1} times"
                if on_error is None:
                    raise AffectError(f"{item}: {died}", _REMEDY) from None
                more = on_error(item, died)
            for new in more or ():
                future = client.submit(call, new, pure=False)
                item_of[future.key] = new
                done.add(future)
            del future


_REMEDY = "Free memory, or use fewer workers with runtime.workers."


def _lost(scheduler: str | None) -> AffectError:
    where = f" at {scheduler}" if scheduler else ""
    remedy = "Start it again, then run this command again. Finished work is kept."
    return AffectError(f"the connection to the Dask scheduler{where} was lost", remedy)


@contextmanager
def _client(workers: int, scheduler: str | None, threads: int) -> "Iterator[Client]":
    from dask import config
    from distributed import Client, LocalCluster

    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=10, set_as_default=False)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise AffectError(f"no Dask scheduler answers at {scheduler} ({reason})", "Check --scheduler.") from error
        with _without_logs(), client:
            yield client
        return
    settings = {
        "logging.distributed": "critical",
        "distributed.scheduler.allowed-failures": DEATHS,
        # A worker has only its current task, so no other task is counted when it dies.
        "distributed.scheduler.worker-saturation": 1.0,
        # The monitoring of Dask uses 5 % of a core.
        "distributed.worker.profile.enabled": False,
        "distributed.admin.system-monitor.interval": "5s",
        "distributed.admin.system-monitor.gil.enabled": False,
        "distributed.admin.tick.interval": "1s",
        **{f"distributed.nanny.pre-spawn-environ.{name}": threads for name in THREAD_VARIABLES},
        **{f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in KEPT.items()},
    }
    with config.set(settings), _same_environment(), _without_logs():
        try:
            cluster = LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=True, host="127.0.0.1",
                dashboard_address="127.0.0.1:0", memory_limit=0, silence_logs=logging.CRITICAL,
                scheduler_kwargs={"dashboard": False},
            )  # fmt: skip
        except (RuntimeError, OSError) as error:
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            raise ProcessError(
                f"{workers} worker processes cannot be started ({cause})",
                "Raise the limit of open files with `ulimit -n` and of processes with `ulimit -u`, "
                "or set runtime.workers=0 to work without them.",
            ) from error
        try:
            with Client(cluster, set_as_default=False) as client:
                yield client
        except BaseException:
            # Dask would wait for the running tasks.
            for nanny in cluster.workers.values():
                nanny.auto_restart = False
                with suppress(ProcessLookupError, TypeError):
                    os.kill(nanny.pid, signal.SIGKILL)
            with suppress(Exception):  # Dask raises this for a worker that is just starting
                cluster.close()
            raise
        cluster.close()


@contextmanager
def _requirements(client: "Client", scheduler: str | None, shared: Shared | None) -> Iterator[dict[str, Any] | None]:
    """What each worker of the scheduler must have, after a check of its present workers; see worker_check.

    Until the block ends, there is a file in the shared folder by which later workers are checked. Raises AffectError,
    which names the workers that cannot be used, and WorkError.
    """
    if scheduler is None or shared is None:
        yield None
        return
    import cloudpickle

    cloudpickle.register_pickle_by_value(worker_check)
    probe = temp_path(shared.folder / "dask")
    try:
        shared.folder.mkdir(parents=True, exist_ok=True)
        probe.write_text(uuid4().hex, encoding="ascii")
    except OSError as error:
        raise unwritable(probe, error, "another folder") from error
    try:
        needed = worker_check.requirements(probe, shared.reads, shared.weights)
        _check_workers(client, scheduler, needed, shared.warn)
        yield needed
    finally:
        probe.unlink(missing_ok=True)


def _check_workers(client: "Client", scheduler: str, needed: dict[str, Any], warn: Callable[[str], None]) -> None:
    refused = [f"{name} has Python {there}, this command {here}" for name, there, here in _other_pythons(client)]
    notes: dict[str, list[str]] = {}
    if not refused:
        found: dict[str, Any] = client.run(worker_check.check_worker, needed, on_error="return")
        for address, facts in found.items():
            if isinstance(facts, Exception):
                refused.append(f"worker {address} cannot be checked ({type(facts).__name__}: {facts})")
                continue
            name = _worker_name(facts["name"], address)
            refused += [f"{name} {problem}" for problem in facts["problems"]]
            for note in facts["notes"]:
                notes.setdefault(note, []).append(name)
        problems = client.run_on_scheduler(worker_check.check_process, needed)["problems"]
        refused += [f"the scheduler {problem}" for problem in problems]
        if not found:
            warn(f"the Dask scheduler at {scheduler} has no workers yet: waiting for the first one")
    if refused:
        more = f"; and {len(refused) - SHOWN} more" if len(refused) > SHOWN else ""
        raise AffectError(f"the Dask cluster at {scheduler} cannot be used: {'; '.join(refused[:SHOWN])}{more}", SAME)
    for note, names in notes.items():
        warn(f"{', '.join(names[:SHOWN])} {note}: results may differ in the last bits")


def _retire(client: "Client", found: dict[str, Any], warn: Callable[[str], None]) -> None:
    """Takes workers that cannot be used out of the cluster. found: what is wrong with each, by address."""
    for address, facts in found.items():
        warn(f"{_worker_name(facts['name'], address)} is not used: it {'; it '.join(facts['problems'])}. {SAME}")
    client.retire_workers(list(found), close_workers=True)


def _other_pythons(client: "Client") -> Iterator[tuple[str, str, str]]:
    """(process, its Python, the Python of this process) where these differ. Functions cannot be sent to such workers."""
    found = cast(dict[str, Any], client.get_versions())
    processes = {"the scheduler": found["scheduler"]}
    processes |= {f"worker {address}": facts for address, facts in found["workers"].items()}
    here = ".".join(map(str, sys.version_info[:2]))
    for name, facts in processes.items():
        there = ".".join(facts["host"]["python"].split(".")[:2])
        if there != here:
            yield name, there, here


def _worker_name(name: str, address: str) -> str:
    return f"worker {address}" if name == address else f"worker {name} ({address})"


@contextmanager
def _without_logs() -> Iterator[None]:
    """Silences the tracebacks that Dask logs for lost connections. affect raises one error instead."""
    levels = {logger: logger.level for logger in map(logging.getLogger, ("distributed", "distributed.client"))}
    for logger in levels:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


@contextmanager
def _same_environment() -> Iterator[None]:
    """Restores the environment of this process: Dask writes the variables of its workers into it."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
