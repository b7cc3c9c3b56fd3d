"""SLURM: not checked yet."""

from collections.abc import Iterator
from pathlib import Path

from .checks import Check, UnavailableError


def slurm(folder: Path) -> Iterator[Check]:
    yield from ()
    raise UnavailableError("there are no checks with SLURM yet")
