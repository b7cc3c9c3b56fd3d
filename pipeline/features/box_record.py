"""The record of the box files that `affect detect-boxes` wrote, `.detected.json` in their folder.

With it, the stage replaces its own files when the detector changes, and never a file that came with the data or that
somebody edited.
"""

import json
from pathlib import Path

from ..storage.atomic import write_text
from ..storage.fingerprint import content_digest

NAME = ".detected.json"


class BoxRecord:
    """For each box file of a folder that the stage wrote: its fingerprint, and the digest of its content."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._files: dict[str, list[str]] = {}
        try:
            files = json.loads(self._path.read_text(encoding="utf-8"))
            self._files = {str(name): [str(made), str(content)] for name, (made, content) in files.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            pass  # without a record, all files are kept

    def __contains__(self, file: Path) -> bool:
        return file.name in self._files

    def is_outdated(self, file: Path, fingerprint: str) -> bool:
        """Whether the stage wrote this file with another fingerprint and nobody changed it since. Raises InputError."""
        made, content = self._files.get(file.name, (fingerprint, ""))
        return made != fingerprint and content_digest(file) == content

    def add(self, file: Path, fingerprint: str, content: str) -> None:
        """Records a file and saves the record. content: the content_digest of the file. Raises WorkError."""
        self._files[file.name] = [fingerprint, content]
        write_text(self._path, json.dumps(self._files, indent=1, sort_keys=True) + "\n", "another --out")
