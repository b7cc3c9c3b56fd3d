"""The record of the box files that `affect detect-boxes` wrote, `.detected.json` in their folder.

With it, the stage replaces its own files when the detector changes, and never a file that came with the data or that
somebody edited. New entries are appended to `.detected.jsonl`, because writing the whole record for each of 100,000
files would take hours. The end of the stage, or the next run, moves them to `.detected.json`.
"""

import json
from pathlib import Path

from ..storage.atomic import unwritable, write_text
from ..storage.fingerprint import content_digest

NAME = ".detected.json"
NEW = ".detected.jsonl"


class BoxRecord:
    """For each box file of a folder that the stage wrote: its fingerprint, and the digest of its content."""

    def __init__(self, folder: Path) -> None:
        self._path, self._new = folder / NAME, folder / NEW
        self._files: dict[str, list[str]] = {}
        try:
            files = json.loads(self._path.read_text(encoding="utf-8"))
            self._files = {str(name): [str(made), str(content)] for name, (made, content) in files.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            pass  # without a record, all files are kept
        self._files |= _entries(self._new)

    def __contains__(self, file: Path) -> bool:
        return file.name in self._files

    def is_outdated(self, file: Path, fingerprint: str) -> bool:
        """Whether the stage wrote this file with another fingerprint and nobody changed it since. Raises InputError."""
        made, content = self._files.get(file.name, (fingerprint, ""))
        return made != fingerprint and content_digest(file) == content

    def add(self, file: Path, fingerprint: str, content: str) -> None:
        """Records a file. content: the content_digest of the file. Raises WorkError."""
        self._files[file.name] = [fingerprint, content]
        try:
            with self._new.open("a", encoding="utf-8") as lines:
                # The first line feed ends a line that a killed process did not finish.
                lines.write(f"\n{json.dumps([file.name, fingerprint, content])}\n")
        except OSError as error:
            raise unwritable(self._new, error, "another --out") from error

    def save(self) -> None:
        """Writes all entries to `.detected.json`. Raises WorkError."""
        if self._new.exists():
            write_text(self._path, json.dumps(self._files, indent=1, sort_keys=True) + "\n", "another --out")
            self._new.unlink(missing_ok=True)


def _entries(path: Path) -> dict[str, list[str]]:
    """The entries of `.detected.jsonl`. A line that a killed process did not finish is ignored."""
    found: dict[str, list[str]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return found
    for line in lines:
        try:
            name, made, content = json.loads(line)
            found[str(name)] = [str(made), str(content)]
        except (ValueError, TypeError):
            continue
    return found
