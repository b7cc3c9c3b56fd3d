"""Training on two nodes with torchrun: the same network as one process trains, also after the loss of a node."""

from collections.abc import Iterator
from pathlib import Path

from .checks import Check, UnavailableError


def nodes(folder: Path) -> Iterator[Check]:
    yield from ()
    raise UnavailableError("there are no checks with torchrun yet")
