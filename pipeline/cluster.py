"""Runs tasks in Dask worker processes, or in this process without workers. The only module that imports Dask."""

import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar, cast

from .errors import AffectError, ProcessError
from .workers.check import admitted
from .workers.requirements import Shared, requirements, retire

if TYPE_CHECKING:
    from distributed import Client

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_SUBMITTED = 4096
"""Tasks that the scheduler knows at the same time. It would need a minute and a gigabyte for 100,000."""

DEATHS = 2
"""Workers that one task may kill before it is reported as failed."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
TLS = tuple(f"DASK_DISTRIBUTED__COMM__TLS__{name}" for name in ("CA_FILE", "CLIENT__CERT", "CLIENT__KEY"))
KEPT = {"MALLOC_ARENA_MAX": 1, "MALLOC_TRIM_THRESHOLD_": 1 << 30, "MALLOC_MMAP_THRESHOLD_": 1 << 30}
"""Memory settings of workers: keep freed memory, in one heap for all threads. With the settings of Dask, networks
return freed memory to the system and get it back page by page (see keep_freed_memory in learning/runtime.py)."""


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
        requirements(client, scheduler, shared) as needed,
    ):
        call = admitted(needed, threads, task)
        first, left = items[:MAX_SUBMITTED], deque(items[MAX_SUBMITTED:])
        futures = client.map(call, first, pure=False, batch_size=len(first))
        item_of = {future.key: item for future, item in zip(futures, first, strict=True)}
        done = as_completed(futures, loop=client.loop, raise_errors=False)
        retired: set[str] = set()
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
                if refusal["address"] not in retired:
                    retired.add(refusal["address"])
                    retire(client, refusal, shared.warn)
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
            left.extendleft(reversed(more or ()))
            while left and len(item_of) < MAX_SUBMITTED:
                new = left.popleft()
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
            _check_encryption(scheduler)
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


def _check_encryption(scheduler: str) -> None:
    """Raises AffectError if Dask's TLS settings do not suit the address, and OSError if a file of them is missing."""
    from distributed import Security

    settings = Security()
    certificate = settings.get_connection_args("client").get("ssl_context")
    if scheduler.startswith("tls://") and certificate is None:
        raise AffectError(f"{scheduler} needs a certificate", f"Set {', '.join(TLS)}, or the same in Dask's config.")
    if settings.require_encryption and not scheduler.startswith("tls://"):
        raise AffectError(f"Dask's settings require encryption, but {scheduler} has none", "Use a tls:// address.")


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
