"""The seal at the head of a shard: a digest of every byte behind it, in the 512 bytes that HDF5 leaves to its user.

HDF5 sums its chunks and, in the format of 1.10, its own tables. The seal covers what lies between them too, and tells a
shard that was changed as a whole. Reading does not need it; `affect verify` checks it.
"""

import hashlib
from pathlib import Path

ROOM = 512
"""Bytes of HDF5's user block."""

_MARK = b"affect shard, sealed by sha256 "


def seal(path: Path) -> None:
    """Writes the digest of what follows the user block into it."""
    with path.open("r+b") as file:
        file.seek(ROOM)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        file.write((_MARK + digest.encode() + b"\n").ljust(ROOM, b"\0"))


def is_sealed(path: Path) -> bool:
    """Whether the whole file is as it was when it was sealed. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(ROOM)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return head == (_MARK + digest.encode() + b"\n").ljust(ROOM, b"\0")
