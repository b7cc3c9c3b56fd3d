"""Temporary folders in TMPDIR, and the error if none can be created."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..errors import WorkError


@contextlib.contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """Yields a folder that is removed at the end of the block. Raises WorkError if it cannot be created."""
    try:
        made = tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)
    except OSError as error:
        raise no_temporary(error) from error
    with made as folder:
        yield Path(folder)


def no_temporary(error: OSError) -> WorkError:
    """The error for a temporary file or folder that cannot be created."""
    return WorkError(
        f"no temporary file can be created ({error.strerror or error})",
        "Free space, or set TMPDIR to a folder that you can write to.",
    )
