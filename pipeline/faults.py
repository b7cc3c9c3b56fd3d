"""Decides whether a fault belongs to one input or ends the stage."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb
from typing import Literal

from .errors import AffectError, ConfigError, DeviceError, MissingExtraError, WeightsError, WorkError
from .records import Problem

_OF_THE_STAGE = (WorkError, DeviceError, WeightsError, MissingExtraError, ConfigError)
_OF_THE_SYSTEM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE)
_OF_THE_FILE = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.EISDIR, errno.ENOTEMPTY, errno.EFBIG)
"""The file system refuses this name or size, or there is a folder of that name. Other files can be written."""


@contextmanager
def one_input(
    name: str, failed: list[Problem], kind: Literal["missing", "damaged", "refused"] = "damaged", part: str = ""
) -> Iterator[None]:
    """Catches a fault in the block and adds it to `failed` as a problem of the input `name`.

    part: which output is missing, if the others are written. Faults that concern all inputs are raised: a full disk, a
    folder or a device that cannot be used, weights that do not fit.
    """
    try:
        yield
    except Exception as error:  # listed, and counted in the exit code
        if _ends_the_stage(error):
            raise
        if isinstance(error, OSError) and error.errno in _OF_THE_SYSTEM:
            where = error.filename or name
            raise WorkError(f"{where}: {error.strerror}", "Free space, or choose another folder.") from error
        failed.append(_problem(name, error, kind, f"{part}: " if part else ""))


def worker_died(name: str, reason: str) -> Problem:
    """The problem of an input whose worker process died."""
    return Problem("damaged", name, reason, "Free memory, or reduce runtime.workers.")


def _ends_the_stage(error: Exception) -> bool:
    cause: BaseException | None = error
    while isinstance(cause, WorkError) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(error, WorkError) and isinstance(cause, OSError):
        return cause.errno not in _OF_THE_FILE
    return isinstance(error, _OF_THE_STAGE)


def _problem(name: str, error: Exception, kind: Literal["missing", "damaged", "refused"], part: str) -> Problem:
    if isinstance(error, FileNotFoundError) or isinstance(error.__cause__, FileNotFoundError):
        kind = "missing"
    if isinstance(error, WorkError):
        return Problem(kind, name, f"{part}{error.problem}", "Rename the file or folder, or choose another folder.")
    if isinstance(error, AffectError):
        return Problem(kind, name, f"{part}{error.problem.removeprefix(f'{name}: ')}", error.remedy)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return Problem(kind, name, f"{part}not enough memory", "Free memory, or reduce its size.")
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        return Problem(kind, name, f"{part}{error.strerror}{where}", "Check the file and its permissions.")
    words = str(error).strip().split("\n")[0]
    *_, last = extract_tb(error.__traceback__)
    where = f"{Path(last.filename).name}, line {last.lineno}"
    return Problem(
        kind, name, f"{part}internal error ({type(error).__name__}: {words}; {where})",
        "This is a bug in affect. Please report it with this line. The other inputs are not affected.",
    )  # fmt: skip
