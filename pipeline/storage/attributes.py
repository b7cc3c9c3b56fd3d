"""Text and JSON among the attributes of an HDF5 file."""

import json
from collections.abc import MutableMapping
from typing import Any

import numpy as np

_LIMIT = 1 << 15


def put_text(attributes: MutableMapping[str, Any], name: str, text: str) -> None:
    """HDF5 holds at most 64 KiB an attribute, so what is longer goes on in name.1, name.2, ...

    As bytes of a fixed length, because HDF5 keeps text of a variable one where no checksum covers it."""
    data = text.encode()
    for number, start in enumerate(range(0, max(1, len(data)), _LIMIT)):
        attributes[f"{name}.{number}" if number else name] = np.bytes_(data[start : start + _LIMIT] or b"\0")


def put_json(attributes: MutableMapping[str, Any], name: str, value: dict[str, Any]) -> None:
    put_text(attributes, name, json.dumps(value, sort_keys=True))


def get_text(attributes: MutableMapping[str, Any], name: str) -> str:
    """Raises KeyError where there is none, TypeError and ValueError where it is no text."""
    pieces, number = [_bytes(attributes[name])], 1
    while f"{name}.{number}" in attributes:
        pieces.append(_bytes(attributes[f"{name}.{number}"]))
        number += 1
    return b"".join(pieces).decode()


def get_json(attributes: MutableMapping[str, Any], name: str) -> dict[str, Any]:
    """As get_text; also RecursionError where it is nested without end."""
    value = json.loads(get_text(attributes, name))
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not a JSON object")
    return value


def _bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)
