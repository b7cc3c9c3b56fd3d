"""Reads shards: HDF5 files with the frames of a video or the features of a subject.

Root attributes: format, version, fingerprint, settings and further attributes as JSON, name of the source, version of
affect. Every dataset is chunked with Fletcher32 checksums. The file format is HDF5 1.10, which also has checksums of
its own tables: in older formats, a flipped bit can make a chunk read as zeros.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import h5py
import h5py.h5l
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ShardError
from .attributes import get_json, get_text
from .corruption import file_identity, is_corrupt, mark_corrupt
from .file_checksum import checksum_matches
from .permissions import refuse_unreadable

if TYPE_CHECKING:
    from torch import Tensor

FRAMES = "affect-frames"
FEATURES = "affect-features"
VERSION = 2
MADE_BY = {FRAMES: "affect extract-frames", FEATURES: "affect cache-features"}

JPEG_CHUNK_BYTES = 1 << 18


class Shard:
    """A shard opened for reading. Use it in a `with` block, and only in the process that opened it.

    format: the expected format, FRAMES or FEATURES. Raises ShardError if the shard is missing, damaged or in another
    format. A shard whose damage is found while reading is marked: it is not opened again, and its stage makes it again.
    """

    def __init__(self, path: Path, format: str) -> None:  # noqa: A002
        self.path = path
        self._remedy = f"Run `{MADE_BY.get(format, 'the stage that made it')}` to make it again."
        if not path.is_file():
            raise ShardError(f"{path}: does not exist", f"Run `{MADE_BY.get(format, format)}` first.")
        if is_corrupt(path):
            raise ShardError(f"{path}: is marked as damaged", self._remedy)
        self._datasets: dict[str, h5py.Dataset] = {}  # finding one takes as long as reading a chunk
        try:
            self._identity = file_identity(path)
            self._file = h5py.File(path, "r", locking=False)
        except OSError as error:
            refuse_unreadable(path, ShardError)
            raise self._damaged(error) from error
        try:
            attributes = self._file.attrs
            found, version = get_text(attributes, "format"), int(str(attributes["version"]))
            self.fingerprint = get_text(attributes, "fingerprint")
            self.source = get_text(attributes, "source")
            self.settings: dict[str, Any] = get_json(attributes, "settings")
            self.attributes: dict[str, Any] = get_json(attributes, "attributes")
            self.names: tuple[str, ...] = tuple(self._file)
            if version == VERSION:
                self._length = self.count("index")
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, RecursionError) as error:
            self.close()
            raise self._damaged(error) from error
        except ShardError:
            self.close()
            raise
        if (found, version) != (format, VERSION):
            self.close()
            raise ShardError(f"{path}: is {found} version {version}, expected {format} version {VERSION}", self._remedy)

    def __len__(self) -> int:
        """Number of frames in the shard."""
        return self._length

    def count(self, name: str) -> int:
        """Number of rows of a dataset."""
        return len(self._dataset(name))

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Reads rows start to stop of a dataset. Raises ShardError if a checksum is wrong."""
        data = self._dataset(name)
        try:
            return data[start:stop]
        except (OSError, RuntimeError) as error:
            raise self._mark_and_report(error) from error

    def verify(self) -> None:
        """Checks the checksum of the file and reads every dataset, in parts. Raises ShardError."""
        try:
            if not checksum_matches(self.path):
                raise OSError("wrong checksum of the file")
        except OSError as error:
            raise self._mark_and_report(error) from error
        for name in self.names:
            step = (self._dataset(name).chunks or (JPEG_CHUNK_BYTES,))[0]
            for start in range(0, self.count(name), step):
                self.read(name, start, start + step)

    def close(self) -> None:
        self._datasets.clear()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _dataset(self, name: str) -> h5py.Dataset:
        if name in self._datasets:
            return self._datasets[name]
        try:
            # Links to other files are not followed: a shard from an untrusted source could read any file.
            link = self._file.get(name, getlink=True)
            data = self._file[name] if link is None or isinstance(link, h5py.HardLink) else None
        except (KeyError, OSError, RuntimeError) as error:
            raise self._mark_and_report(error) from error
        if not isinstance(data, h5py.Dataset) or not data.chunks or not data.fletcher32:
            raise ShardError(f"{self.path}: {name} is not a chunked dataset with checksums", self._remedy)
        self._datasets[name] = data
        return data

    def mark_corrupt(self) -> None:
        """Marks this file as damaged: it is not used again, and its stage makes it again."""
        mark_corrupt(self.path, self._identity)

    def _mark_and_report(self, error: Exception) -> ShardError:
        refuse_unreadable(self.path, ShardError)
        self.mark_corrupt()
        return self._damaged(error)

    def _damaged(self, error: Exception) -> ShardError:
        return ShardError(f"{self.path}: is damaged ({' '.join(str(error).split())})", self._remedy)


class FrameShard(Shard):
    """A shard of frames, each a JPEG."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, FRAMES)

    def frames(self, positions: ArrayLike) -> "Tensor":
        """Decodes the frames at these rows (0 to len - 1, not frame numbers) to uint8 [k, 3, s, s], RGB."""
        from .jpeg import decode

        try:
            return decode(self.jpegs(positions))
        except OSError as error:
            raise self._mark_and_report(error) from error

    def jpegs(self, positions: ArrayLike) -> list[NDArray[np.uint8]]:
        """The JPEG bytes of these rows, in the given order. Adjacent rows are read together."""
        rows = np.atleast_1d(np.asarray(positions, np.int64))
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"{self.path}: positions {rows.min()}..{rows.max()}, the shard has {len(self)}")
        found: dict[int, NDArray[np.uint8]] = {}
        for run in np.split(unique := np.unique(rows), np.flatnonzero(np.diff(unique) > 1) + 1):
            if len(run):
                edges = self.read("offset", int(run[0]), int(run[-1]) + 2)
                data = self.read("jpeg", int(edges[0]), int(edges[-1]))
                found.update(zip(run.tolist(), np.split(data, edges[1:-1] - edges[0]), strict=True))
        return [found[row] for row in rows.tolist()]


def read_rows(path: Path, name: str, start: int, stop: int) -> NDArray[Any]:
    """Reads rows of a dataset in a feature shard that was opened before. Much faster than Shard: reads no attributes.

    Raises ShardError if the shard is damaged, which is then marked, or missing.
    """
    identity = ""
    try:
        identity = file_identity(path)
        file = h5py.h5f.open(os.fsencode(path), h5py.h5f.ACC_RDONLY, _READ_ACCESS)
        is_hard_link = file.links.get_info(name.encode()).type == h5py.h5l.TYPE_HARD
        data = h5py.h5d.open(file, name.encode()) if is_hard_link else None
        if data is None or data.get_create_plist().get_layout() != h5py.h5d.CHUNKED:
            raise OSError(f"{name} is not a chunked dataset")
        space, shape = data.get_space(), data.shape
        rows = np.empty((max(0, min(stop, shape[0]) - start), *shape[1:]), data.dtype)
        space.select_hyperslab((start, *(0 for _ in shape[1:])), rows.shape)
        data.read(h5py.h5s.create_simple(rows.shape), space, rows)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        refuse_unreadable(path, ShardError)
        if identity:
            mark_corrupt(path, identity)
        remedy = f"Run `{MADE_BY[FEATURES]}` to make it again."
        raise ShardError(f"{path}: is damaged ({' '.join(str(error).split())})", remedy) from error
    return rows


_READ_ACCESS = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
_READ_ACCESS.set_file_locking(False, True)


def is_fresh(path: Path, format: str, fingerprint: str) -> bool:  # noqa: A002
    """Whether `path` is a shard with this format and fingerprint. False if it is missing or damaged."""
    try:
        with Shard(path, format) as shard:
            return shard.fingerprint == fingerprint
    except ShardError:
        return False
