"""Random kinds of damage to a file."""

from collections.abc import Callable

import numpy as np

Mutation = Callable[[bytes, np.random.Generator], bytes]


def truncate(data: bytes, rng: np.random.Generator) -> bytes:
    """Cuts the end off, as an interrupted download does."""
    return data[: int(len(data) * rng.uniform(0.02, 0.98))]


def flip_bits(data: bytes, rng: np.random.Generator) -> bytes:
    """Flips some bits, as a faulty disk does."""
    changed = bytearray(data)
    for position in rng.integers(0, len(data), int(2 ** rng.uniform(0, 8))).tolist():
        changed[position] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def splice(data: bytes, rng: np.random.Generator) -> bytes:
    """Inserts random bytes, which shifts all later ones."""
    position = int(rng.integers(0, len(data)))
    return data[:position] + rng.bytes(int(2 ** rng.uniform(0, 14))) + data[position:]


def overwrite(data: bytes, rng: np.random.Generator) -> bytes:
    """Replaces a range by zeros or random bytes, as a lost block does."""
    size = min(len(data), int(2 ** rng.uniform(4, 15)))
    start = int(rng.integers(0, len(data) - size + 1))
    return data[:start] + (bytes(size) if rng.random() < 0.5 else rng.bytes(size)) + data[start + size :]


def drop(data: bytes, rng: np.random.Generator) -> bytes:
    """Removes a range."""
    size = int(2 ** rng.uniform(0, 14))
    start = int(rng.integers(0, max(1, len(data) - size)))
    return data[:start] + data[start + size :]


def cut_head(data: bytes, rng: np.random.Generator) -> bytes:
    """Removes or replaces the first bytes."""
    size = int(2 ** rng.uniform(2, 11))
    return (rng.bytes(size) if rng.random() < 0.5 else b"") + data[size:]


MUTATIONS: tuple[Mutation, ...] = (truncate, flip_bits, splice, overwrite, drop, cut_head)
