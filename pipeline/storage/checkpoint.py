"""Weights on disk: safetensors, with what they mean as JSON in the header. Never pickle.

The header's one entry, `affect`, holds the caller's metadata and a SHA-256 of them and all tensors; safetensors itself
notices a file that is too short, but not a byte that changed.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from ..errors import WeightsError, WorkError
from .leftovers import temporary_beside

if TYPE_CHECKING:
    from torch import Tensor

_KEY = "affect"
_REMEDY = "Remove the file and run the stage that wrote it again, or restore it from a copy."


def save_weights(path: Path, state: Mapping[str, "Tensor"], metadata: Mapping[str, Any]) -> None:
    """Writes tensors by name and JSON-able metadata; the file is there whole or not at all. Raises WorkError."""
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    header = _json({"metadata": dict(metadata), "sha256": _digest(tensors, metadata)})
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, temporary, {_KEY: header})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise WorkError(f"{path}: cannot be written ({error})", "Free some space, or choose another --work.") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata alone: reads the header, needs no torch. Raises WeightsError."""
    return _header(path)["metadata"]


def load_weights(path: Path) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """(tensors by name, on the CPU; metadata). Raises WeightsError where the file is missing, damaged or not ours."""
    from safetensors.torch import load_file

    header = _header(path)
    try:
        state = load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise _damaged(path, error) from error
    if _digest(state, header["metadata"]) != header["sha256"]:
        raise WeightsError(f"{path}: is damaged (its checksum differs)", _REMEDY)
    return state, header["metadata"]


def _header(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise WeightsError(f"{path}: does not exist", "Run the stage that writes it, or name another file.")
    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(_KEY)
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from error
    if text is None:
        raise WeightsError(f"{path}: was not written by affect, its header has no {_KEY!r}", "Name another file.")
    try:
        header = json.loads(text)
        if not isinstance(header["metadata"], dict) or not isinstance(header["sha256"], str):
            raise TypeError("unexpected types")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(path, error) from error
    return header


def _digest(state: Mapping[str, "Tensor"], metadata: Mapping[str, Any]) -> str:
    import torch

    digest = hashlib.sha256(_json(metadata).encode())
    for name in sorted(state):
        tensor = state[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), sort_keys=True, allow_nan=False)


def _damaged(path: Path, error: Exception) -> WeightsError:
    return WeightsError(f"{path}: is damaged ({' '.join(str(error).split())})", _REMEDY)
