"""Stages on the workers of a Dask scheduler: the same files as one process writes, also when a worker dies or joins."""

from collections.abc import Iterator
from pathlib import Path

from .checks import Check, UnavailableError


def dask_workers(folder: Path) -> Iterator[Check]:
    yield from ()
    raise UnavailableError("there are no checks with Dask yet")
