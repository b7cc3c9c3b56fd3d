"""A checksum of a whole shard, stored in the 512 bytes at its start (the HDF5 user block).

HDF5 has checksums of its chunks and, in format 1.10, of its own tables. This checksum also covers the bytes between
them and detects a replaced file. Reading does not check it; `affect verify` does.
"""

import hashlib
from pathlib import Path

USER_BLOCK_BYTES = 512
"""Size of the HDF5 user block."""

_PREFIX = b"affect shard, sealed by sha256 "


def write_checksum(path: Path) -> None:
    """Writes the SHA-256 of everything after the user block into the user block."""
    with path.open("r+b") as file:
        file.seek(USER_BLOCK_BYTES)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        file.write((_PREFIX + digest.encode() + b"\n").ljust(USER_BLOCK_BYTES, b"\0"))


def checksum_matches(path: Path) -> bool:
    """Whether the file is unchanged since `write_checksum`. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(USER_BLOCK_BYTES)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return head == (_PREFIX + digest.encode() + b"\n").ljust(USER_BLOCK_BYTES, b"\0")
