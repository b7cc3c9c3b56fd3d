"""Compares the workers of a Dask scheduler with this process, before they get work and when one joins late."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from ..errors import AffectError
from ..storage.atomic import temp_path, unwritable
from . import check

if TYPE_CHECKING:
    from distributed import Client

SHOWN = 8
"""Problems of workers that one message lists."""
SAME = "Install the same affect on all machines, start their workers again, and use paths that all machines share."


@dataclass(frozen=True)
class Shared:
    """What the workers of a scheduler must share with this process: the same folder, which they write to, and the same
    input files and weights. warn: receives warnings about workers."""

    folder: Path
    reads: Sequence[Path]
    weights: Sequence[Path]
    warn: Callable[[str], None]


@contextmanager
def requirements(client: "Client", scheduler: str | None, shared: Shared | None) -> Iterator[dict[str, Any] | None]:
    """What each worker of the scheduler must have, after a check of its present workers; see check.

    Until the block ends, there is a file in the shared folder by which later workers are checked. Raises AffectError,
    which names the workers that cannot be used, and WorkError.
    """
    if scheduler is None or shared is None:
        yield None
        return
    from cloudpickle import register_pickle_by_value

    register_pickle_by_value(check)
    probe = temp_path(shared.folder / "dask")
    try:
        shared.folder.mkdir(parents=True, exist_ok=True)
        probe.write_text(uuid4().hex, encoding="ascii")
    except OSError as error:
        raise unwritable(probe, error, "another folder") from error
    try:
        needed = check.needed(probe, shared.reads, shared.weights)
        _check_workers(client, scheduler, needed, shared.warn)
        yield needed
    finally:
        probe.unlink(missing_ok=True)


def _check_workers(client: "Client", scheduler: str, needed: dict[str, Any], warn: Callable[[str], None]) -> None:
    refused = [f"{name} has Python {there}, this command {here}" for name, there, here in _other_pythons(client)]
    notes: dict[str, list[str]] = {}
    if not refused:
        found = cast(dict[str, Any], client.run(check.check_worker, needed, on_error="return"))
        for address, facts in found.items():
            if isinstance(facts, Exception):
                refused.append(f"worker {address} cannot be checked ({type(facts).__name__}: {facts})")
                continue
            name = _worker_name(facts["name"], address)
            refused += [f"{name} {problem}" for problem in facts["problems"]]
            for note in facts["notes"]:
                notes.setdefault(note, []).append(name)
        own = cast(dict[str, Any], client.run_on_scheduler(check.check_process, needed))
        refused += [f"the scheduler {problem}" for problem in own["problems"]]
        if not found:
            warn(f"the Dask scheduler at {scheduler} has no workers yet: waiting for the first one")
    if refused:
        more = f"; and {len(refused) - SHOWN} more" if len(refused) > SHOWN else ""
        raise AffectError(f"the Dask cluster at {scheduler} cannot be used: {'; '.join(refused[:SHOWN])}{more}", SAME)
    for note, names in notes.items():
        warn(f"{', '.join(names[:SHOWN])} {note}: results may differ in the last bits")


def retire(client: "Client", found: dict[str, Any], warn: Callable[[str], None]) -> None:
    """Takes a worker that cannot be used out of the cluster. found: by check.admitted."""
    name = _worker_name(found["name"], found["address"])
    warn(f"{name} is not used: it {'; it '.join(found['problems'])}. {SAME}")
    client.retire_workers([found["address"]], close_workers=True)


def _other_pythons(client: "Client") -> Iterator[tuple[str, str, str]]:
    """(process, its Python, the Python of this process) where these differ. Functions cannot be sent there."""
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
