"""Ways to damage a file, each drawn from a random generator."""

from collections.abc import Callable

import numpy as np

Mutation = Callable[[bytes, np.random.Generator], bytes]


def truncate(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut short, as by a broken download."""
    return data[: int(len(data) * rng.uniform(0.02, 0.98))]


def flip_bits(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bits the other way, as by a bad disk."""
    changed = bytearray(data)
    for place in rng.integers(0, len(data), int(2 ** rng.uniform(0, 8))).tolist():
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def splice(data: bytes, rng: np.random.Generator) -> bytes:
    """Garbage put in between, which moves all that follows."""
    place = int(rng.integers(0, len(data)))
    return data[:place] + rng.bytes(int(2 ** rng.uniform(0, 14))) + data[place:]


def overwrite(data: bytes, rng: np.random.Generator) -> bytes:
    """A stretch of zeros or of noise in the place of what was there, as by a lost block."""
    size = min(len(data), int(2 ** rng.uniform(4, 15)))
    place = int(rng.integers(0, len(data) - size + 1))
    return data[:place] + (bytes(size) if rng.random() < 0.5 else rng.bytes(size)) + data[place + size :]


def drop(data: bytes, rng: np.random.Generator) -> bytes:
    """A stretch taken out."""
    size = int(2 ** rng.uniform(0, 14))
    place = int(rng.integers(0, max(1, len(data) - size)))
    return data[:place] + data[place + size :]


def cut_head(data: bytes, rng: np.random.Generator) -> bytes:
    """The first bytes gone, or changed."""
    size = int(2 ** rng.uniform(2, 11))
    return (rng.bytes(size) if rng.random() < 0.5 else b"") + data[size:]


MUTATIONS: tuple[Mutation, ...] = (truncate, flip_bits, splice, overwrite, drop, cut_head)
