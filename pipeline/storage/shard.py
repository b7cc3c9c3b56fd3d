"""Shards: HDF5 files of one video's frames or one subject's features, written whole or not at all. Only h5py import.

A shard's root attributes are its format and version, the fingerprint of what it was made from, the settings and further
attributes as JSON, the source's name and the version of affect. Every dataset is chunked and carries Fletcher32 sums;
the file is of HDF5 1.10, which sums its own tables too. In older ones a flipped bit may make a chunk read as zeros.
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
from .attributes import get_json, get_text, put_json, put_text
from .damage import forget, is_marked, mark, which
from .leftovers import sweep, sync, temporary_beside
from .seal import ROOM, is_sealed, seal

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FEATURES", "FRAMES", "VERSION", "FrameShard", "Shard", "ShardWriter", "is_fresh", "read_rows", "sweep"]

FRAMES = "affect-frames"
FEATURES = "affect-features"
VERSION = 2
MADE_BY = {FRAMES: "affect extract-frames", FEATURES: "affect cache-features"}

_STREAM_CHUNK = 1 << 18
_SMALL_CHUNK = 1 << 14
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class ShardWriter:
    """Writes one shard, a piece at a time; it appears under its name when the `with` block ends well, and only then.

    append(**arrays) adds rows to the datasets named; the first call fixes each one's dtype and row shape. `attributes`
    may be filled until the block ends. Raises WorkError where the folder cannot be written or is full.
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
        # Held open: closing one writes out its last chunk, only half full as yet.
        self._data: dict[str, h5py.Dataset] = {}
        self._temporary = temporary_beside(path)

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _create(self._temporary)
        except OSError as error:
            raise self._unwritable(error) from error
        return self

    def append(self, **arrays: ArrayLike) -> None:
        """Adds rows at the end of each dataset named."""
        try:
            for name, array in arrays.items():
                rows = np.ascontiguousarray(array)
                data = self._data[name] if name in self._data else self._create(name, rows)
                if data.dtype != rows.dtype or data.shape[1:] != rows.shape[1:]:
                    raise ValueError(
                        f"{name} is {rows.dtype} {rows.shape[1:]} a row, the shard's is {data.dtype} {data.shape[1:]}"
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
        chunk = _STREAM_CHUNK if rows.dtype == np.uint8 and rows.ndim == 1 else max(64, _SMALL_CHUNK // row_bytes)
        self._data[name] = self._file.create_dataset(
            name, (0, *rows.shape[1:]), rows.dtype, maxshape=(None, *rows.shape[1:]), chunks=(chunk, *rows.shape[1:]),
            fletcher32=True, track_times=False,
        )  # fmt: skip
        return self._data[name]

    def _commit(self) -> None:
        from ... import __version__

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
        seal(self._temporary)
        sync(self._temporary)
        try:
            with Shard(self._temporary, self._format) as shard:
                read = {name: shard.count(name) for name in shard.names}
                if (read, shard.fingerprint, shard.attributes) != (lengths, self._fingerprint, self.attributes):
                    raise OSError("what was read back differs from what was written")
        except ShardError as error:
            raise OSError(f"what was written does not read back: {error.problem}") from error
        self._temporary.replace(self.path)
        forget(self.path)
        sync(self.path.parent)

    def _discard(self) -> None:
        # A full disk fails the flush that closing does; the file goes away either way.
        with contextlib.suppress(OSError, RuntimeError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)
        forget(self._temporary)

    def _give_up(self) -> None:
        """Lets HDF5 write what it still holds to nowhere, or it would fail again, and noisily, at every close."""
        if file := getattr(self, "_file", None):
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, file.id.get_vfd_handle())
            os.close(nowhere)

    def _unwritable(self, error: Exception) -> WorkError:
        self._give_up()
        text = " ".join(str(error).split())
        reason = next((os.strerror(code) for code in _NO_ROOM if f"errno = {code}," in text), text)
        return WorkError(f"{self.path}: cannot be written ({reason})", "Free space, or choose another --work.")


class Shard:
    """A shard opened to read. Use it in a `with` block, and in the process that opened it.

    format: what it has to be, FRAMES or FEATURES. Raises ShardError where it is missing, damaged or of another kind.
    Damage that shows only in reading is marked, so that the shard is not opened again and its stage makes it anew.
    """

    def __init__(self, path: Path, format: str) -> None:  # noqa: A002
        self.path = path
        self._remedy = f"Run `{MADE_BY.get(format, 'the stage that made it')}` again, which makes it anew."
        if not path.is_file():
            raise ShardError(f"{path}: there is no such shard", f"Run `{MADE_BY.get(format, format)}` first.")
        if is_marked(path):
            raise ShardError(f"{path}: was found to be damaged", self._remedy)
        try:
            self._opened = which(path)
            self._file = h5py.File(path, "r", locking=False)
        except OSError as error:
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
        """Rows: frames that are there."""
        return self._length

    def count(self, name: str) -> int:
        """Rows of one dataset."""
        return len(self._dataset(name))

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows start to stop of a dataset. Raises ShardError where their checksum fails."""
        data = self._dataset(name)
        try:
            return data[start:stop]
        except (OSError, RuntimeError) as error:
            raise self._spoilt(error) from error

    def verify(self) -> None:
        """Reads all there is, against its checksums and its seal, in pieces. Raises ShardError."""
        try:
            if not is_sealed(self.path):
                raise OSError("its bytes are not those that were written")
        except OSError as error:
            raise self._spoilt(error) from error
        for name in self.names:
            step = (self._dataset(name).chunks or (_STREAM_CHUNK,))[0]
            for start in range(0, self.count(name), step):
                self.read(name, start, start + step)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _dataset(self, name: str) -> h5py.Dataset:
        try:
            # A shard of a stranger may point to other files: they are not followed.
            link = self._file.get(name, getlink=True)
            data = self._file[name] if link is None or isinstance(link, h5py.HardLink) else None
        except (KeyError, OSError, RuntimeError) as error:
            raise self._spoilt(error) from error
        if not isinstance(data, h5py.Dataset) or not data.chunks or not data.fletcher32:
            raise ShardError(f"{self.path}: {name} is not a dataset of its own with checksums", self._remedy)
        return data

    def condemn(self) -> None:
        """Marks this file as damaged: nobody uses it any more, and its stage makes it anew."""
        mark(self.path, self._opened)

    def _spoilt(self, error: Exception) -> ShardError:
        self.condemn()
        return self._damaged(error)

    def _damaged(self, error: Exception) -> ShardError:
        return ShardError(f"{self.path}: is damaged ({' '.join(str(error).split())})", self._remedy)


class FrameShard(Shard):
    """A shard of frames, each a JPEG."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, FRAMES)

    def frames(self, positions: ArrayLike) -> "Tensor":
        """Pictures at these places in the shard (0 to len - 1, not frame numbers): uint8 torch [k, 3, s, s], RGB."""
        from .jpeg import decode

        try:
            return decode(self.jpegs(positions))
        except OSError as error:
            raise self._spoilt(error) from error

    def jpegs(self, positions: ArrayLike) -> list[NDArray[np.uint8]]:
        """The JPEG bytes at these places, in the order asked; neighbours are read in one piece."""
        wanted = np.atleast_1d(np.asarray(positions, np.int64))
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"{self.path}: positions {wanted.min()}..{wanted.max()}, the shard has {len(self)}")
        found: dict[int, NDArray[np.uint8]] = {}
        for run in np.split(unique := np.unique(wanted), np.flatnonzero(np.diff(unique) > 1) + 1):
            if len(run):
                edges = self.read("offset", int(run[0]), int(run[-1]) + 2)
                data = self.read("jpeg", int(edges[0]), int(edges[-1]))
                pieces = np.split(data, edges[1:-1] - edges[0])
                found.update(zip(run.tolist(), pieces, strict=True))
        return [found[place] for place in wanted.tolist()]


def read_rows(path: Path, name: str, start: int, stop: int) -> NDArray[Any]:
    """Rows of a dataset in a shard of features that was read before, for much less work than opening it as a Shard:
    what it says of itself is not looked at again. Raises ShardError where it is damaged or gone; damage is marked."""
    opened = ""
    try:
        opened = which(path)
        file = h5py.h5f.open(os.fsencode(path), h5py.h5f.ACC_RDONLY, _READS)
        own = file.links.get_info(name.encode()).type == h5py.h5l.TYPE_HARD
        data = h5py.h5d.open(file, name.encode()) if own else None
        if data is None or data.get_create_plist().get_layout() != h5py.h5d.CHUNKED:
            raise OSError(f"{name} is not a dataset of its own")
        space, shape = data.get_space(), data.shape
        rows = np.empty((max(0, min(stop, shape[0]) - start), *shape[1:]), data.dtype)
        space.select_hyperslab((start, *(0 for _ in shape[1:])), rows.shape)
        data.read(h5py.h5s.create_simple(rows.shape), space, rows)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        if opened:
            mark(path, opened)
        remedy = f"Run `{MADE_BY[FEATURES]}` again, which makes it anew."
        raise ShardError(f"{path}: is damaged ({' '.join(str(error).split())})", remedy) from error
    return rows


_READS = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
_READS.set_file_locking(False, True)


def is_fresh(path: Path, format: str, fingerprint: str) -> bool:  # noqa: A002
    """Whether a shard of that format and fingerprint is there, by its attributes; False if missing or damaged."""
    try:
        with Shard(path, format) as shard:
            return shard.fingerprint == fingerprint
    except ShardError:
        return False


def _create(path: Path) -> h5py.File:
    """A new file of HDF5 1.10, with room for the seal, and without times, so that the same content is the same file."""
    access, creation = h5py.h5p.create(h5py.h5p.FILE_ACCESS), h5py.h5p.create(h5py.h5p.FILE_CREATE)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    access.set_file_locking(True, True)
    creation.set_userblock(ROOM)
    creation.set_obj_track_times(False)
    return h5py.File(h5py.h5f.create(os.fsencode(path), h5py.h5f.ACC_TRUNC, creation, access))
