"""File names as text: printed, written as JSON, and short enough for a file system.

A name on Linux is bytes. Python holds bytes that are not UTF-8 as lone surrogates, which no encoder takes.
"""

import csv
import hashlib
import io
import json
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

NAME_BYTES = 255
"""Maximum length of a file name on the usual file systems, in bytes."""

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def shown(text: str) -> str:
    """Escapes control characters, except tabs and newlines, and bytes that are not UTF-8."""
    return _UNPRINTABLE.sub(lambda found: _escape(ord(found[0])), text)


def json_text(value: Any, *, ascii_only: bool = False, **options: Any) -> str:
    """JSON that can be written as UTF-8 or as ASCII. json.loads returns the same names, whatever their bytes."""
    text = json.dumps(value, ensure_ascii=ascii_only, **options)
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def writes_unicode() -> bool:
    """Whether stdout can write any character."""
    return (getattr(sys.stdout, "encoding", None) or "ascii").lower().replace("-", "").startswith("utf")


def accept_any_text() -> None:
    """Lets stdout and stderr write escapes for characters that their encoding lacks, instead of raising an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def name_bytes(folder: Path) -> int:
    """Maximum length of a file name in a folder, in bytes. The folder need not exist."""
    for place in (folder, *folder.absolute().parents):
        try:
            return min(NAME_BYTES, os.pathconf(place, "PC_NAME_MAX"))
        except (OSError, ValueError, AttributeError):
            continue
    return NAME_BYTES


def shorten_name(name: str, room: int, most: int = NAME_BYTES) -> str:
    """The name if it fits with `room` more bytes; otherwise its beginning and a digest of the name."""
    data = os.fsencode(name)
    if len(data) + room <= most:
        return name
    digest = "~" + hashlib.sha256(data).hexdigest()[:10]
    size, kept = len(digest) + room, []
    for letter in name:
        size += len(os.fsencode(letter))
        if size > most:
            break
        kept.append(letter)
    return "".join(kept) + digest


def csv_text(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A CSV table as text."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _escape(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00  # a byte that is not UTF-8
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
