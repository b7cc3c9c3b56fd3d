"""Distinguishes a file without read permission from a damaged one."""

from pathlib import Path

from ..errors import AffectError


def refuse_unreadable(path: Path, kind: type[AffectError]) -> None:
    """Raises `kind` if the user may not read the file. Call it after a read failed."""
    try:
        with path.open("rb"):
            return
    except PermissionError as error:
        raise kind(f"{path}: no permission to read it", f"Ask its owner to run: chmod a+r {path}") from error
    except OSError:
        return
