"""Reads and writes text and JSON as attributes of an HDF5 file."""

import json
from collections.abc import MutableMapping
from typing import Any

import numpy as np

MAX_BYTES = 1 << 15
"""Largest attribute written here. HDF5 allows at most 64 KiB."""


def put_text(attributes: MutableMapping[str, Any], name: str, text: str) -> None:
    """Writes text, split into the attributes name, name.1, name.2, ... if it is longer than MAX_BYTES.

    Stored as bytes of fixed length: HDF5 stores strings of variable length without a checksum.
    """
    data = text.encode(errors="surrogateescape")  # file names may not be UTF-8
    for number, start in enumerate(range(0, max(1, len(data)), MAX_BYTES)):
        attributes[f"{name}.{number}" if number else name] = np.bytes_(data[start : start + MAX_BYTES] or b"\0")


def put_json(attributes: MutableMapping[str, Any], name: str, value: dict[str, Any]) -> None:
    put_text(attributes, name, json.dumps(value, sort_keys=True))


def get_text(attributes: MutableMapping[str, Any], name: str) -> str:
    """Reads text. Raises KeyError if it is missing, TypeError or ValueError if it is not text."""
    parts, number = [_bytes(attributes[name])], 1
    while f"{name}.{number}" in attributes:
        parts.append(_bytes(attributes[f"{name}.{number}"]))
        number += 1
    return b"".join(parts).decode(errors="surrogateescape")


def get_json(attributes: MutableMapping[str, Any], name: str) -> dict[str, Any]:
    """Reads a JSON object. Raises as get_text does, and RecursionError if it is nested too deeply."""
    value = json.loads(get_text(attributes, name))
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not a JSON object")
    return value


def _bytes(value: Any) -> bytes:
    return value.encode(errors="surrogateescape") if isinstance(value, str) else bytes(value)
