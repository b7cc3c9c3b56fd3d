"""Tracks several people: joins the faces found in each frame into one track per person.

Boxes that are near each other in position, size and time form a tracklet. The longest tracklets that are visible at the
same time become the people; every other tracklet joins the nearest person. Only boxes are compared, not faces: people
who cross, or who change places while they are not visible, may be swapped.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

MIN_PRESENCE = 0.5
"""Minimum face probability of a box."""
MAX_STEP = 1.2
"""Maximum distance between a face in successive frames, see `_distance`."""
MAX_GAP = 0.6
"""Seconds that a face may be hidden within a tracklet."""
MAX_RETURN_DISTANCE = 6.0
"""Maximum distance between the end of one tracklet and the start of the next one of the same person."""
MIN_SECONDS = 0.25
"""Shorter tracklets are ignored."""
REGION_SCALE = 2.6
"""Side of the region given to the STN, relative to the side of the person's box."""

BoxArray = NDArray[np.float64]
"""Boxes [n, 4] or one box [4], x0 y0 x1 y1 in pixels."""


@dataclass(eq=False)
class _Tracklet:
    """An uninterrupted part of a track. weight: sum of the face probabilities."""

    rows: list[int] = field(default_factory=list)
    boxes: list[BoxArray] = field(default_factory=list)
    weight: float = 0.0

    def add(self, row: int, box: BoxArray, presence: float) -> None:
        self.rows.append(row)
        self.boxes.append(box)
        self.weight += presence


def track_faces(
    boxes: NDArray[np.floating], presence: NDArray[np.floating], time: NDArray[np.float64], people: int
) -> list[BoxArray]:
    """The box of each person in each frame, [n, 4] per person, ordered from left to right by their first position.

    boxes: [n, k, 4], candidates per frame, in pixels; presence: [n, k], their probabilities; time: [n], seconds. Boxes
    of frames without the person are interpolated linearly, and held before the first and after the last one. The list
    is shorter than `people` if fewer people are visible.
    """
    tracklets = [it for it in _tracklets(boxes, presence, time) if time[it.rows[-1]] - time[it.rows[0]] >= MIN_SECONDS]
    tracklets.sort(key=lambda tracklet: -tracklet.weight)
    tracks = [[seed] for seed in _seeds(tracklets, people)]
    for tracklet in tracklets:
        if not any(tracklet in track for track in tracks):
            distance, track = min(
                ((_distance_to_track(tracklet, track), track) for track in tracks),
                key=lambda it: it[0],
                default=(np.inf, []),
            )
            if distance < MAX_RETURN_DISTANCE:
                track.append(tracklet)
    tracks.sort(key=_first_x)
    return [_interpolate(track, time) for track in tracks]


def regions(persons: list[BoxArray], width: int, height: int) -> list[NDArray[np.float32]]:
    """The part of the picture in which the STN searches for each person's face: float32 [n, 4] per person, fractions.

    It surrounds the person's box and ends halfway to the boxes of the others.
    """
    found = []
    for number, own in enumerate(persons):
        centre, half = (own[:, :2] + own[:, 2:]) / 2, (own[:, 2:] - own[:, :2]) / 2 * REGION_SCALE
        part = np.concatenate((centre - half, centre + half), 1)
        for other in persons[:number] + persons[number + 1 :]:
            _separate(part, own, other)
        found.append((part.clip(0, [width, height, width, height]) / [width, height, width, height]).astype(np.float32))
    return found


def _tracklets(
    boxes: NDArray[np.floating], presence: NDArray[np.floating], time: NDArray[np.float64]
) -> list[_Tracklet]:
    """Joins each candidate to the nearest open tracklet, nearest pairs first; the others start new tracklets."""
    tracklets: list[_Tracklet] = []
    open_tracklets: list[_Tracklet] = []
    for row, (candidates, probability) in enumerate(zip(boxes.astype(np.float64), presence, strict=True)):
        faces = [k for k in range(len(probability)) if probability[k] >= MIN_PRESENCE]
        open_tracklets = [it for it in open_tracklets if time[row] - time[it.rows[-1]] <= MAX_GAP]
        pairs = sorted(
            (_distance(it.boxes[-1], candidates[k]), i, k) for i, it in enumerate(open_tracklets) for k in faces
        )
        joined: set[int] = set()
        for distance, i, k in pairs:
            if distance <= MAX_STEP and k not in joined and open_tracklets[i].rows[-1] != row:
                open_tracklets[i].add(row, candidates[k], float(probability[k]))
                joined.add(k)
        for k in faces:
            if k not in joined:
                open_tracklets.append(_Tracklet())
                open_tracklets[-1].add(row, candidates[k], float(probability[k]))
                tracklets.append(open_tracklets[-1])
    return tracklets


def _seeds(tracklets: list[_Tracklet], people: int) -> list[_Tracklet]:
    """The first tracklet of each person. tracklets: by falling weight.

    The next seed is the first tracklet that is visible at the same time as each earlier seed, or, if there is none,
    the first one that is too far away from all of them to be the same person.
    """
    seeds = tracklets[:1]
    while seeds and len(seeds) < people:
        others = [it for it in tracklets if it not in seeds]
        concurrent = [it for it in others if all(set(it.rows) & set(seed.rows) for seed in seeds)]
        distant = [it for it in others if min(_distance_to_track(it, [seed]) for seed in seeds) >= MAX_RETURN_DISTANCE]
        if not concurrent and not distant:
            break
        seeds.append((concurrent or distant)[0])
    return seeds


def _distance_to_track(tracklet: _Tracklet, track: list[_Tracklet]) -> float:
    """The distance to the tracklet of the track that is nearest in time; inf if both are visible at the same time."""
    rows = set(tracklet.rows)
    if any(rows & set(other.rows) for other in track):
        return float("inf")
    near = min(track, key=lambda other: max(other.rows[0] - tracklet.rows[-1], tracklet.rows[0] - other.rows[-1]))
    later = near.rows[0] > tracklet.rows[-1]
    return _distance(near.boxes[0 if later else -1], tracklet.boxes[-1 if later else 0])


def _distance(one: BoxArray, other: BoxArray) -> float:
    """The distance of the centres in face sizes, plus the log ratio of the heights."""
    size = np.sqrt(((one[2:] - one[:2]) * (other[2:] - other[:2])).clip(1e-6))
    shift = (one[:2] + one[2:] - other[:2] - other[2:]) / 2 / size.mean()
    return float(np.hypot(*shift) + np.abs(np.log(np.ptp(one[1::2]) / np.ptp(other[1::2]))))


def _first_x(track: list[_Tracklet]) -> float:
    first = min(track, key=lambda tracklet: tracklet.rows[0])
    return float(first.boxes[0][0] + first.boxes[0][2])


def _interpolate(track: list[_Tracklet], time: NDArray[np.float64]) -> BoxArray:
    rows = np.concatenate([tracklet.rows for tracklet in track]).astype(np.int64)
    boxes = np.concatenate([tracklet.boxes for tracklet in track])
    order = np.argsort(rows)
    return np.stack([np.interp(time, time[rows[order]], boxes[order, side]) for side in range(4)], 1)


def _separate(part: BoxArray, own: BoxArray, other: BoxArray) -> None:
    """Ends the part, in place, halfway between the two boxes, along the axis on which they are further apart."""
    size = (own[:, 2:] - own[:, :2] + other[:, 2:] - other[:, :2]) / 2
    apart = np.abs(own[:, :2] + own[:, 2:] - other[:, :2] - other[:, 2:]) / 2 / size
    rows = np.arange(len(own))
    axis = apart.argmax(1)
    before = (own[rows, axis] + own[rows, axis + 2]) < (other[rows, axis] + other[rows, axis + 2])
    between = np.where(
        before, own[rows, axis + 2] + other[rows, axis], own[rows, axis] + other[rows, axis + 2]
    ) / 2  # fmt: skip
    centre = (own[rows, axis] + own[rows, axis + 2]) / 2  # the part always keeps one half of the own box
    between = np.where(before, np.maximum(between, centre), np.minimum(between, centre))
    end = np.where(before, axis + 2, axis)
    part[rows, end] = np.where(before, np.minimum(part[rows, end], between), np.maximum(part[rows, end], between))
