"""Digests that tell whether what lies on the disk was made from these sources with these settings."""

import hashlib
import json
import os
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError

EDGE = 1 << 16
"""Bytes at the head and at the tail of a source that its digest covers."""


def source_digest(path: Path) -> str:
    """Hex digest of a source by its size, mtime (ns), head and tail bytes: cheap for any length. Raises InputError."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            facts = path.stat()
            digest.update(f"{facts.st_size} {facts.st_mtime_ns} ".encode())
            digest.update(file.read(EDGE))
            if facts.st_size > EDGE:
                file.seek(max(EDGE, facts.st_size - EDGE))
                digest.update(file.read(EDGE))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})", "Check the path and its permissions.") from error
    return digest.hexdigest()


def content_digest(path: Path) -> str:
    """Hex digest of every byte of a file, wherever it lies and however old it is. Raises InputError."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})", "Check the path and its permissions.") from error


def folder_digest(folder: Path) -> str:
    """Hex digest of the files right in a folder by their names, sizes and mtimes: no file is opened, as there may be a
    hundred thousand. Raises InputError."""
    digest = hashlib.sha256()
    try:
        with os.scandir(folder) as entries:
            files = sorted((entry.name, entry.stat()) for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be read ({error.strerror})", "Check the path and its permissions."
        ) from error
    for name, facts in files:
        digest.update(f"{name}\0{facts.st_size} {facts.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def fingerprint(**parts: Any) -> str:
    """Hex digest of named parts (JSON values, paths, dataclasses, pydantic models); the order of keys does not matter.

    Raises TypeError for a part that has no canonical form, and ValueError for NaN.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no canonical form; give numbers, strings, lists or dicts")
