"""Finds the frame number of each packet.

Frames are numbered in presentation order. Frames that a damaged file has lost keep their numbers; otherwise all later
frames would get wrong labels. Only a break in the structure of the file shows that frames were lost. A gap in time does
not: cameras skip frames.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .chains import avi_chunks, breaks

MIN_EVEN_SHARE = 0.9
"""Share of the time steps that must be equal. Only then can lost frames be counted by time."""
MIN_GAP = 1.5
"""A time step is a gap if it is longer than this multiple of the median step."""
MIN_STEPS = 8
"""Fewer time steps are not enough to find the usual step."""
MAX_REORDER = 8
"""Number of packets on each side of a break whose frame may be shown on the other side, as decoding order differs from
presentation order."""


class Packet(NamedTuple):
    """A packet without its data, which would need as much memory as the file."""

    pts: int | None
    dts: int | None
    pos: int | None
    size: int
    is_discard: bool
    is_corrupt: bool
    is_keyframe: bool = False


Numbers = tuple[NDArray[np.int64], int]
"""The increasing numbers of the first packets, and how many frames the file had. Later packets have no number."""


def by_index(packets: Sequence[Packet], index: Sequence[tuple[int, int]], promised: int) -> Numbers:
    """Numbers for MP4 and MOV. index: (position, timestamp) of each frame. promised: number of frames in the header."""
    if len(index) > len(packets):
        found = _index_rows(packets, index)
        if None not in found and len(set(found)) == len(found):
            return np.array(found, np.int64), len(index)
    # The header also counts frames that an edit list hides. The index does not, so it takes precedence.
    return np.arange(len(packets)), max(len(index) or promised, len(packets))


def by_chunks(path: Path, packets: Sequence[Packet], index: Sequence[tuple[int, int]], promised: int) -> Numbers:
    """Numbers for AVI, which has no timestamps: by the order of its chunks. Chunks of 0 bytes are not frames.

    index: (position, number of the chunk in the stream) of each frame; may be incomplete. promised: number of chunks in
    the header. If the sequence of chunks is broken and the index is incomplete, only frames before the break get
    numbers.
    """
    found = _index_rows(packets, index)
    if len(packets) == promised and (not index or None in found or found == list(range(promised))):
        return np.arange(promised), promised
    chunks = avi_chunks(path, _stream_of(path, packets[0]))
    frames = chunks.start[chunks.size > 0]
    missing = 0 if chunks.indexed and not chunks.broken else max(0, promised - len(chunks.size))
    frame_at = {start: number for number, start in enumerate(frames.tolist())}
    chained = [frame_at.get(packet.pos or -1) for packet in packets]
    if not chunks.broken and None not in chained and _is_increasing(chained):
        return np.array(chained, np.int64), len(frames) + missing
    if index and index[-1][1] + 1 == promised and None not in found and _is_increasing(found):
        return np.array(found, np.int64), len(index)
    certain = chained.index(None) if None in chained else len(chained)
    if not certain and not chunks.broken:  # frames do not have their own chunks, as in DV
        return np.arange(len(packets)), len(packets)
    return np.array(chained[:certain], np.int64), max(len(frames) + missing, len(packets))


def by_time(stamps: NDArray[np.int64], broken: NDArray[np.bool_]) -> Numbers:
    """Numbers for containers without a list of frames: Matroska, FLV, MPEG streams.

    stamps: int64 [n], increasing. broken: bool [n - 1], whether the file is broken between a frame and the next one. A
    gap at a break is counted as lost frames if the time steps are equal and the gap is a multiple of the step.
    Otherwise the number of lost frames is unknown, and later frames get no number.
    """
    steps = np.diff(stamps)
    lost = np.zeros(len(steps), np.int64)
    if not broken.any():
        return np.arange(len(stamps)), len(stamps)
    gaps = broken & (steps > MIN_GAP * np.median(steps))
    regular = steps[~gaps & (steps > 0)]
    median = float(np.median(regular)) if len(regular) else 0.0
    usual = regular[np.abs(regular - median) <= np.maximum(1, 0.05 * median)]
    even = len(usual) >= max(MIN_STEPS, MIN_EVEN_SHARE * len(regular))
    step = float(usual.mean()) if len(usual) else 1.0
    for i in np.flatnonzero(gaps).tolist():
        multiple = round(steps[i] / step)
        # Both timestamps of a step are rounded to ticks.
        if not even or abs(steps[i] - multiple * step) > max(1.5, 0.05 * step):
            number = np.arange(i + 1) + np.concatenate(([0], np.cumsum(lost[:i])))
            return number, len(stamps) + int(lost.sum())
        lost[i] = multiple - 1
    return np.arange(len(stamps)) + np.concatenate(([0], np.cumsum(lost))), len(stamps) + int(lost.sum())


def broken_steps(
    path: Path, kind: str, stream: int, packets: Sequence[Packet], stamps: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether frames may be lost between a frame and the next one, bool [n - 1], in presentation order.

    stamps: int64 [n], of the packets in file order. Reads the file again only if the time steps are not equal.
    """
    order = np.argsort(stamps, kind="stable")
    steps = np.diff(stamps[order])
    found = np.zeros(len(steps), bool)
    if len(steps) < MIN_STEPS or not (steps > MIN_GAP * np.median(steps)).any():
        return found
    position = np.array([-1 if packet.pos is None else packet.pos for packet in packets], np.int64)
    position = np.maximum.accumulate(position)
    rank = np.argsort(order)
    for i in np.searchsorted(position, breaks(path, kind, stream)).tolist():
        if 0 < i < len(packets):
            near = rank[max(0, i - MAX_REORDER) : i + MAX_REORDER]
            found[near.min() : near.max()] = True
    return found


def first_shown(packets: Sequence[Packet], stamps: NDArray[np.int64], decoded: int) -> int:
    """The timestamp of the first frame that players show.

    A file that was cut may start with frames that refer to missing frames. Players do not show them. stamps: int64 [n],
    of the packets in file order. decoded: timestamp of the first frame that can be decoded.
    """
    key = next((i for i, packet in enumerate(packets) if packet.is_keyframe), None)
    return int(stamps.min()) if key is None else min(decoded, int(stamps[key]))


def breaks_before(path: Path, kind: str, stream: int, packets: Sequence[Packet]) -> bool:
    """Whether the file is broken before its first keyframe."""
    key = next((packet.pos for packet in packets if packet.is_keyframe), None)
    return bool((breaks(path, kind, stream) < (key or 0)).any())


def rising(packets: Sequence[Packet], stamps: NDArray[np.int64]) -> NDArray[np.int64]:
    """Corrected timestamps of the packets in file order, int64 [n].

    If the timestamps restart, as in concatenated files, each part is shifted to follow the part before. If decoding
    order equals presentation order, single timestamps that are too small are interpolated from their neighbours.
    """
    stamps = _join_parts(packets, stamps)
    if (np.diff(stamps) < 0).any() and all(packet.dts == packet.pts for packet in packets):
        kept = _longest_increase(stamps.tolist())
        if len(kept) >= MIN_EVEN_SHARE * len(stamps):
            return np.interp(np.arange(len(stamps)), kept, stamps[kept]).astype(np.int64)
    return stamps


def _join_parts(packets: Sequence[Packet], stamps: NDArray[np.int64]) -> NDArray[np.int64]:
    """The timestamps, with each part shifted to follow the part before it."""
    starts = [0, *_restarts(packets, stamps), len(stamps)]
    if len(starts) == 2:
        return stamps
    joined = stamps.copy()
    for before, start, stop in zip(starts, starts[1:-1], starts[2:], strict=False):
        part = joined[before:start]
        steps = np.diff(np.sort(part))
        step = int(np.median(steps)) if len(steps) else 1
        joined[start:stop] += part.max() + max(1, step) - joined[start:stop].min()
    return joined


def _restarts(packets: Sequence[Packet], stamps: NDArray[np.int64]) -> list[int]:
    """Indices of the packets at which the timestamps restart. A single wrong timestamp is not a restart."""
    known = all(packet.dts is not None for packet in packets)
    times = np.array([packet.dts for packet in packets], np.int64) if known else stamps
    if len(times) < 4:
        return []
    if known:
        before = np.minimum(times[1:-2], times[:-3])
        after = np.maximum(times[2:-1], times[3:])
        return (np.flatnonzero(after < before) + 2).tolist()
    window = 2 * MAX_REORDER
    if len(times) < 2 * window:
        return []
    blocks = np.lib.stride_tricks.sliding_window_view(times, window)
    low, high = blocks.min(1), blocks.max(1)
    return (np.flatnonzero(high[window:] < low[:-window]) + window).tolist()


def _longest_increase(values: Sequence[int]) -> list[int]:
    """Indices of the longest increasing subsequence."""
    ends: list[int] = []
    indices: list[int] = []
    previous: list[int] = []
    for i, value in enumerate(values):
        length = bisect_left(ends, value)
        previous.append(indices[length - 1] if length else -1)
        ends[length : length + 1] = [value]
        indices[length : length + 1] = [i]
    found: list[int] = []
    i = indices[-1] if indices else -1
    while i >= 0:
        found.append(i)
        i = previous[i]
    return found[::-1]


def _index_rows(packets: Sequence[Packet], index: Sequence[tuple[int, int]]) -> list[int | None]:
    """The row of each packet in the index."""
    rows = {position: row for row, (position, _) in enumerate(index)}
    # The index of an AVI has the position of the chunk header, 8 bytes before the data.
    return [rows.get(packet.pos or -1, rows.get((packet.pos or 0) - 8)) for packet in packets]


def _stream_of(path: Path, packet: Packet) -> bytes:
    """The first two bytes of the chunk identifier of a packet, which identify the stream."""
    with path.open("rb") as file:
        file.seek(max(0, (packet.pos or 0) - 8))
        return file.read(2)


def _is_increasing(numbers: Sequence[int | None]) -> bool:
    """Whether the known numbers are strictly increasing."""
    known = [number for number in numbers if number is not None]
    return all(before < after for before, after in pairwise(known))
