"""Which number each packet's frame has where packets are missing: by the file's index, its chain of chunks, or time.

Counting the packets that are left would give every frame behind a hole another's label.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RARE = 0.1
"""Gaps in an otherwise even rhythm are lost frames if they are at most this share of its steps."""


class Packet(NamedTuple):
    """What is kept of a packet: not its data, which would be the whole file."""

    pts: int | None
    dts: int | None
    pos: int | None
    size: int
    is_discard: bool
    is_corrupt: bool


Numbers = tuple[NDArray[np.int64], int]
"""The number of each of the first packets, rising, and how many frames the file had. Packets behind them have none."""


def by_index(packets: Sequence[Packet], index: Sequence[tuple[int, int]], promised: int) -> Numbers:
    """Of MP4 and MOV, whose index lists every frame by its (position, timestamp), as far as the file is there."""
    if len(index) > len(packets):
        found = _places(packets, index)
        if None not in found and len(set(found)) == len(found):
            return np.array(found, np.int64), len(index)
    # The header counts what an edit list hides as well; the index, where there is one, does not.
    return np.arange(len(packets)), max(len(index) or promised, len(packets))


def by_chunks(path: Path, packets: Sequence[Packet], index: Sequence[tuple[int, int]], promised: int) -> Numbers:
    """Of AVI, whose packets have no timestamps: its header says how many frames there were, and its index where.

    Where the two do not account for every frame, only those before the first break in the chain of chunks are certain.
    """
    total = max(promised, len(index), len(packets))
    found = _places(packets, index)
    if len(packets) == total and (not index or None in found or found == list(range(total))):
        return np.arange(total), total
    known = np.array([-1 if place is None else place for place in found], np.int64)
    if len(index) == total and (known >= 0).all() and (np.diff(known) > 0).all():
        return known, total
    if index and found[:1] != [0]:
        return np.arange(0), total
    return np.arange(_chained(path, packets)), total


def by_rhythm(stamps: NDArray[np.int64]) -> Numbers:
    """Of containers that list no frames (Matroska, MPEG streams). stamps: rising.

    Where they come evenly but for a few gaps of whole steps, the gaps are frames that were lost; else they are counted.
    """
    counted = np.arange(len(stamps)), len(stamps)
    steps = np.diff(stamps)
    if len(steps) < 8 or (steps <= 0).any():
        return counted
    usual = steps[np.abs(steps - np.median(steps)) <= np.maximum(1, 0.05 * np.median(steps))]
    if len(usual) < (1 - RARE) * len(steps):
        return counted
    step = float(usual.mean())
    whole = np.rint(steps / step).astype(np.int64)
    # Timestamps are rounded to ticks, at both ends of a step.
    if (whole < 1).any() or (np.abs(steps - whole * step) > np.maximum(1.5, 0.05 * step)).any():
        return counted
    slot = np.concatenate(([0], np.cumsum(whole)))
    return slot, int(slot[-1]) + 1


def _places(packets: Sequence[Packet], index: Sequence[tuple[int, int]]) -> list[int | None]:
    """Where the index has each packet."""
    places = {position: place for place, (position, _) in enumerate(index)}
    # An AVI's index points at the head of a chunk, 8 bytes before its data.
    return [places.get(packet.pos or -1, places.get((packet.pos or 0) - 8)) for packet in packets]


def _chained(path: Path, packets: Sequence[Packet]) -> int:
    """How many packets follow upon one another with nothing but whole chunks of other streams between them."""
    with path.open("rb") as file:
        file.seek(max(0, (packets[0].pos or 0) - 8))
        own = file.read(2)
        for count, (before, packet) in enumerate(pairwise(packets), 1):
            place, end = (before.pos or 0) + before.size, (packet.pos or 0) - 8
            place += place & 1
            while place < end:
                file.seek(place)
                head = file.read(8)
                if not head[:4].isalnum() or head[:2] == own:
                    return count
                size = 4 if head[:4] == b"LIST" else int.from_bytes(head[4:], "little")
                place += 8 + size + (size & 1)
            if place != end:
                return count
    return len(packets)
