"""Writes shards, atomically. shard.py describes the format and reads it."""

import contextlib
import errno
import os
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ShardError, WorkError
from .atomic import Replacement, unwritable
from .attributes import put_json, put_text
from .corruption import clear_mark
from .file_checksum import USER_BLOCK_BYTES, write_checksum
from .shard import JPEG_CHUNK_BYTES, VERSION, Shard

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
        chunk = JPEG_CHUNK_BYTES if is_jpeg else max(64, _ROW_CHUNK_BYTES // row_bytes)
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


def _create(path: Path) -> h5py.File:
    """Creates an HDF5 1.10 file with a user block and without timestamps: equal content gives equal bytes."""
    access, creation = h5py.h5p.create(h5py.h5p.FILE_ACCESS), h5py.h5p.create(h5py.h5p.FILE_CREATE)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    access.set_file_locking(False, True)  # no other process uses this file; some file systems have no locks
    creation.set_userblock(USER_BLOCK_BYTES)
    creation.set_obj_track_times(False)
    return h5py.File(h5py.h5f.create(os.fsencode(path), h5py.h5f.ACC_TRUNC, creation, access))
