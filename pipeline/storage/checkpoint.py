"""Reads and writes weights as safetensors, with metadata as JSON in the header. Never pickle.

The header has one entry, `affect`, with the metadata of the caller and a SHA-256 over metadata and tensors. safetensors
itself detects a truncated file, but not a changed byte.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from ..errors import WeightsError
from .atomic import write_bytes
from .permissions import refuse_unreadable
from .quantization import dequantize, quantize

if TYPE_CHECKING:
    from torch import Tensor

_KEY = "affect"
_REMEDY = "Remove the file and run the stage that wrote it again, or restore it from a copy."


def save_weights(path: Path, state: Mapping[str, "Tensor"], metadata: Mapping[str, Any], *, int8: bool = False) -> None:
    """Writes tensors by name with metadata (JSON values), atomically. int8: quantize large tensors.

    Raises WorkError.
    """
    from safetensors.torch import save

    state = quantize(state) if int8 else state
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    header = _json({"metadata": dict(metadata), "sha256": _digest(tensors, metadata)})
    # Not `save_file`: it has its own temporary file with mode 0600, which `sweep` would not find after a kill.
    write_bytes(path, save(tensors, {_KEY: header}))


def read_metadata(path: Path) -> dict[str, Any]:
    """Reads only the metadata, without torch. Raises WeightsError."""
    return _header(path)["metadata"]


def load_weights(path: Path) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """Reads tensors by name, on the CPU, and the metadata. Quantized tensors are returned as float32.

    They do not share memory with the file. Raises WeightsError if the file is missing, damaged or not from affect.
    """
    state, metadata = read_tensors(path)
    weights = dequantize(state)
    # The tensors are pages of the file. If it were truncated later, reading them would crash the process.
    return {name: it.clone() if it is state.get(name) else it for name, it in weights.items()}, metadata


def read_tensors(path: Path, prefix: str = "") -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """Reads tensors by name as they are stored, on the CPU, and the metadata.

    prefix: read only the tensors with this beginning of their name, without checking the checksum of the file.
    Raises WeightsError as `load_weights` does.
    """
    header = _header(path)
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        refuse_unreadable(path, WeightsError)
        raise _damaged(path, error) from error
    if not prefix and _digest(state, header["metadata"]) != header["sha256"]:
        raise WeightsError(f"{path}: is damaged (wrong checksum)", _REMEDY)
    return state, header["metadata"]


def _header(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise WeightsError(f"{path}: does not exist", "Run the stage that writes it, or give another file.")
    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(_KEY)
    except (OSError, SafetensorError) as error:
        refuse_unreadable(path, WeightsError)
        raise _damaged(path, error) from error
    if text is None:
        raise WeightsError(f"{path}: was not written by affect (no {_KEY!r} in its header)", "Give another file.")
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
