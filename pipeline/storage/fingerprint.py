"""Digests of sources and settings. A stage compares them to decide whether an existing file is up to date."""

import hashlib
import json
import os
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError

SAMPLE_BYTES = 1 << 16
"""A source digest covers this many bytes at the start and at the end of the file."""


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be read ({error.strerror})", "Check the path, its permissions and the disk.")


def source_digest(path: Path) -> str:
    """Hex digest of size, mtime (ns), first and last bytes of a file: fast for large files. Raises InputError."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            facts = path.stat()
            digest.update(f"{facts.st_size} {facts.st_mtime_ns} ".encode())
            digest.update(file.read(SAMPLE_BYTES))
            if facts.st_size > SAMPLE_BYTES:
                file.seek(max(SAMPLE_BYTES, facts.st_size - SAMPLE_BYTES))
                digest.update(file.read(SAMPLE_BYTES))
    except OSError as error:
        raise _unreadable(path, error) from error
    return digest.hexdigest()


def content_digest(path: Path) -> str:
    """Hex digest of the content of a file, independent of its path and mtime. Raises InputError."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def folder_digest(folder: Path) -> str:
    """Hex digest of names, sizes and mtimes of the files in a folder, without its subfolders. Raises InputError.

    Opens no file: there may be 100,000.
    """
    digest = hashlib.sha256()
    try:
        with os.scandir(folder) as entries:
            files = sorted((entry.name, entry.stat()) for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise _unreadable(folder, error) from error
    for name, facts in files:
        digest.update(f"{name}\0{facts.st_size} {facts.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def fingerprint(**parts: Any) -> str:
    """Hex digest of named values: JSON values, paths, dataclasses, pydantic models. Independent of the order of keys.

    Raises TypeError for a value of another type, and ValueError for NaN.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def without_unset(settings: Any, *names: str) -> dict[str, Any]:
    """The settings of a section as JSON values, without the named ones that are None. So fingerprints from before these
    settings existed stay valid."""
    return settings.model_dump(mode="json", exclude={name for name in names if getattr(settings, name) is None})


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} cannot be part of a fingerprint; use numbers, strings, lists or dicts")
