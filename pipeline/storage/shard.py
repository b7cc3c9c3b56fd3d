"""Reads and writes shards: HDF5 files with the frames of a video or the features of a subject. Imports h5py.

Root attributes: format, version, fingerprint, settings and further attributes as JSON, name of the source, version of
affect. Every dataset is chunked with Fletcher32 checksums. The file format is HDF5 1.10, which also has checksums of
its own tables: in older formats, a flipped bit can make a chunk read as zeros.
"""

import contextlib
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import h5py
import h5py.h5l
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ShardError, WorkError
from .atomic import Replacement, sweep, unwritable
from .attributes import get_json, get_text, put_json, put_text
from .corruption import clear_mark, file_identity, is_corrupt, mark_corrupt
from .file_checksum import USER_BLOCK_BYTES, checksum_matches, write_checksum
from .permissions import refuse_unreadable

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FEATURES", "FRAMES", "VERSION", "FrameShard", "Shard", "ShardWriter", "is_fresh", "read_rows", "sweep"]

FRAMES = "affect-frames"
FEATURES = "affect-features"
VERSION = 2
MADE_BY = {FRAMES: "affect extract-frames", FEATURES: "affect cache-features"}

_JPEG_CHUNK_BYTES = 1 << 18
_ROW_CHUNK_BYTES = 1 << 14
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class ShardWriter:
    """Writes a shard in parts. It gets its name at the end of the `with` block, and only if no exception was raised.

    `attributes` can be changed until the end of the block. Raises WorkError if the folder cannot be written or is full.
    """

    def __init__(
        self,
        path: Path,
        format: str,  # noqa: A002
        fingerprint: str,
        settings: dict[str, Any],
        source: str,
        attributes: dict[str, Any] | None = None,
    ) -> None:
        self.path = path
        self.attributes = dict(attributes or {})
        self._format, self._fingerprint, self._settings, self._source = format, fingerprint, settings, source
        # Kept open: closing a dataset writes its last chunk, which may be incomplete.
        self._data: dict[str, h5py.Dataset] = {}

    def __enter__(self) -> Self:
        try:
            self._replacement = Replacement(self.path)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            self._file = _create(self._replacement.temporary)
        except OSError as error:
            self._replacement.discard()
            raise self._unwritable(error) from error
        return self

    def append(self, **arrays: ArrayLike) -> None:
        """Appends rows to the named datasets. The first call sets dtype and row shape of each dataset."""
        try:
            for name, array in arrays.items():
                rows = np.ascontiguousarray(array)
                data = self._data[name] if name in self._data else self._create(name, rows)
                if data.dtype != rows.dtype or data.shape[1:] != rows.shape[1:]:
                    raise ValueError(
                        f"{name}: rows are {rows.dtype} {rows.shape[1:]}, expected {data.dtype} {data.shape[1:]}"
                    )
                end = len(data)
                data.resize(end + len(rows), axis=0)
                data[end:] = rows
        except (OSError, RuntimeError) as error:
            raise self._unwritable(error) from error

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._commit()
        except (OSError, RuntimeError) as failure:
            raise self._unwritable(failure) from failure
        finally:
            self._discard()

    def _create(self, name: str, rows: NDArray[Any]) -> h5py.Dataset:
        row_bytes = max(1, rows.dtype.itemsize * int(np.prod(rows.shape[1:])))
        is_jpeg = rows.dtype == np.uint8 and rows.ndim == 1
        chunk = _JPEG_CHUNK_BYTES if is_jpeg else max(64, _ROW_CHUNK_BYTES // row_bytes)
        self._data[name] = self._file.create_dataset(
            name, (0, *rows.shape[1:]), rows.dtype, maxshape=(None, *rows.shape[1:]), chunks=(chunk, *rows.shape[1:]),
            fletcher32=True, track_times=False,
        )  # fmt: skip
        return self._data[name]

    def _commit(self) -> None:
        from ..version import __version__

        lengths = {name: len(data) for name, data in self._data.items()}
        attributes = self._file.attrs
        attributes["version"] = VERSION
        texts = {"format": self._format, "tool": __version__, "fingerprint": self._fingerprint, "source": self._source}
        for name, text in texts.items():
            put_text(attributes, name, text)
        put_json(attributes, "settings", self._settings)
        put_json(attributes, "attributes", self.attributes)
        self._file.flush()
        self._file.close()
        temporary = self._replacement.temporary
        write_checksum(temporary)
        try:
            with Shard(temporary, self._format) as shard:
                read = {name: shard.count(name) for name in shard.names}
                if (read, shard.fingerprint, shard.attributes) != (lengths, self._fingerprint, self.attributes):
                    raise OSError("the written file has other content than expected")
        except ShardError as error:
            raise OSError(f"the written file cannot be read: {error.problem}") from error
        self._replacement.commit()
        clear_mark(self.path)

    def _discard(self) -> None:
        # Closing flushes, which fails on a full disk. The file is removed anyway.
        with contextlib.suppress(OSError, RuntimeError):
            self._file.close()
        self._replacement.discard()
        clear_mark(self._replacement.temporary)

    def _redirect_to_devnull(self) -> None:
        """Sends the remaining writes of HDF5 to /dev/null. Otherwise it prints an error at every close."""
        if file := getattr(self, "_file", None):
            devnull = os.open(os.devnull, os.O_RDWR)
            os.dup2(devnull, file.id.get_vfd_handle())
            os.close(devnull)

    def _unwritable(self, error: Exception) -> WorkError:
        self._redirect_to_devnull()
        text = " ".join(str(error).split())
        reason = next((os.strerror(code) for code in _DISK_ERRORS if f"errno = {code}," in text), text)
        if isinstance(error, OSError) and error.errno not in (None, *_DISK_ERRORS):
            return unwritable(self.path, error)
        return WorkError(f"{self.path}: cannot be written ({reason})", "Free space, or choose another --work.")


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
            step = (self._dataset(name).chunks or (_JPEG_CHUNK_BYTES,))[0]
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


def _create(path: Path) -> h5py.File:
    """Creates an HDF5 1.10 file with a user block and without timestamps: equal content gives equal bytes."""
    access, creation = h5py.h5p.create(h5py.h5p.FILE_ACCESS), h5py.h5p.create(h5py.h5p.FILE_CREATE)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    access.set_file_locking(False, True)  # no other process uses this file; some file systems have no locks
    creation.set_userblock(USER_BLOCK_BYTES)
    creation.set_obj_track_times(False)
    return h5py.File(h5py.h5f.create(os.fsencode(path), h5py.h5f.ACC_TRUNC, creation, access))
