"""The digest of a video in fingerprints: of its file, and of how its frames are read."""

from pathlib import Path

from ..ingest.video.reading import reading
from ..storage.fingerprint import fingerprint, source_digest


def video_digest(path: Path) -> str:
    """Hex digest of a video's size, mtime, head, tail and reading version. Raises InputError."""
    digest = source_digest(path)  # first, because it raises if the file is not readable
    version = reading(path)
    return digest if version == 1 else fingerprint(source=digest, reading=version)
