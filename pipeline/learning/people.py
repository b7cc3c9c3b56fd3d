"""Who is who when several people are in the picture: faces found frame by frame, joined into one track a person.

A face goes on where it was: boxes near each other in place, size and time are a piece of one person's track. The people
are the pieces that are seen longest while the others are there too; what else was seen of a person joins by nearness.
Nothing here looks at faces, so people who cross, or who change places while unseen, may be taken for each other.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

LEAST = 0.5
"""Probability from which a face is followed."""
REACH = 1.2
"""How far a face moves from frame to frame at most, in face sizes, changes of size included."""
GAP = 0.6
"""Seconds that a face may be hidden without its piece ending."""
RETURN = 6.0
"""How far from where it was lost a person may come back, in face sizes."""
SHORT = 0.25
"""Seconds; shorter pieces are no people."""
SIDE = 2.6
"""Side of the region given to the STN, in sides of the person's box."""

Places = NDArray[np.float64]
"""Boxes, x0 y0 x1 y1 in pixels."""


@dataclass(eq=False)
class _Piece:
    rows: list[int] = field(default_factory=list)
    places: list[Places] = field(default_factory=list)
    weight: float = 0.0

    def add(self, row: int, place: Places, presence: float) -> None:
        self.rows.append(row)
        self.places.append(place)
        self.weight += presence


def follow_people(
    boxes: NDArray[np.floating], presence: NDArray[np.floating], time: NDArray[np.float64], people: int
) -> list[Places]:
    """Where each person is in each frame, [n, 4], from left to right by where they first appear.

    boxes: [n, k, 4], pixels; presence: [n, k], probabilities; time: [n], seconds. Between frames in which a person is
    seen the box moves in a straight line, before and after it stands still. Fewer than `people` where fewer are seen.
    """
    pieces = [it for it in _pieces(boxes, presence, time) if time[it.rows[-1]] - time[it.rows[0]] >= SHORT]
    pieces.sort(key=lambda piece: -piece.weight)
    tracks = [[seed] for seed in _seeds(pieces, people)]
    for piece in pieces:
        if not any(piece in track for track in tracks):
            away, track = min(
                ((_away(piece, track), track) for track in tracks), key=lambda it: it[0], default=(np.inf, [])
            )
            if away < RETURN:
                track.append(piece)
    tracks.sort(key=_first_place)
    return [_everywhere(track, time) for track in tracks]


def regions(persons: list[Places], width: int, height: int) -> list[NDArray[np.float32]]:
    """The part of the picture for the STN to find each person's face in: float32 [n, 4], fractions of the picture.

    It lies around the person's box and ends halfway to the others.
    """
    found = []
    for number, own in enumerate(persons):
        centre, half = (own[:, :2] + own[:, 2:]) / 2, (own[:, 2:] - own[:, :2]) / 2 * SIDE
        part = np.concatenate((centre - half, centre + half), 1)
        for other in persons[:number] + persons[number + 1 :]:
            _keep_apart(part, own, other)
        found.append((part.clip(0, [width, height, width, height]) / [width, height, width, height]).astype(np.float32))
    return found


def _pieces(boxes: NDArray[np.floating], presence: NDArray[np.floating], time: NDArray[np.float64]) -> list[_Piece]:
    every: list[_Piece] = []
    going: list[_Piece] = []
    for row, (places, likely) in enumerate(zip(boxes.astype(np.float64), presence, strict=True)):
        there = [k for k in range(len(likely)) if likely[k] >= LEAST]
        going = [piece for piece in going if time[row] - time[piece.rows[-1]] <= GAP]
        steps = sorted(
            ((_step(piece.places[-1], places[k]), i, k) for i, piece in enumerate(going) for k in there),
        )
        joined: set[int] = set()
        for step, i, k in steps:
            if step <= REACH and k not in joined and going[i].rows[-1] != row:
                going[i].add(row, places[k], float(likely[k]))
                joined.add(k)
        for k in there:
            if k not in joined:
                going.append(_Piece())
                going[-1].add(row, places[k], float(likely[k]))
                every.append(going[-1])
    return every


def _seeds(pieces: list[_Piece], people: int) -> list[_Piece]:
    """A piece for each person: those seen longest that are seen beside all others; where there is none, one that could
    not be any of them by its place."""
    seeds = pieces[:1]
    while seeds and len(seeds) < people:
        rest = [piece for piece in pieces if piece not in seeds]
        beside = [piece for piece in rest if all(set(piece.rows) & set(seed.rows) for seed in seeds)]
        apart = [piece for piece in rest if min(_away(piece, [seed]) for seed in seeds) >= RETURN]
        if not beside and not apart:
            break
        seeds.append((beside or apart)[0])
    return seeds


def _away(piece: _Piece, track: list[_Piece]) -> float:
    """How far a piece lies from the nearest in time of a track, in face sizes; inf where both are seen at once."""
    rows = set(piece.rows)
    if any(rows & set(other.rows) for other in track):
        return float("inf")
    near = min(track, key=lambda other: max(other.rows[0] - piece.rows[-1], piece.rows[0] - other.rows[-1]))
    late = near.rows[0] > piece.rows[-1]
    return _step(near.places[0 if late else -1], piece.places[-1 if late else 0])


def _step(one: Places, other: Places) -> float:
    size = np.sqrt(((one[2:] - one[:2]) * (other[2:] - other[:2])).clip(1e-6))
    shift = (one[:2] + one[2:] - other[:2] - other[2:]) / 2 / size.mean()
    return float(np.hypot(*shift) + np.abs(np.log(np.ptp(one[1::2]) / np.ptp(other[1::2]))))


def _first_place(track: list[_Piece]) -> float:
    first = min(track, key=lambda piece: piece.rows[0])
    return float(first.places[0][0] + first.places[0][2])


def _everywhere(track: list[_Piece], time: NDArray[np.float64]) -> Places:
    rows = np.concatenate([piece.rows for piece in track]).astype(np.int64)
    places = np.concatenate([piece.places for piece in track])
    order = np.argsort(rows)
    return np.stack([np.interp(time, time[rows[order]], places[order, side]) for side in range(4)], 1)


def _keep_apart(part: Places, own: Places, other: Places) -> None:
    """Ends the part, in place, halfway between the two boxes: in the direction in which they are further apart."""
    size = (own[:, 2:] - own[:, :2] + other[:, 2:] - other[:, :2]) / 2
    apart = np.abs(own[:, :2] + own[:, 2:] - other[:, :2] - other[:, 2:]) / 2 / size
    rows = np.arange(len(own))
    axis = apart.argmax(1)
    before = (own[rows, axis] + own[rows, axis + 2]) < (other[rows, axis] + other[rows, axis + 2])
    between = np.where(
        before, own[rows, axis + 2] + other[rows, axis], own[rows, axis] + other[rows, axis + 2]
    ) / 2  # fmt: skip
    centre = (own[rows, axis] + own[rows, axis + 2]) / 2  # of which the part keeps a side, however large the other is
    between = np.where(before, np.maximum(between, centre), np.minimum(between, centre))
    end = np.where(before, axis + 2, axis)
    part[rows, end] = np.where(before, np.minimum(part[rows, end], between), np.maximum(part[rows, end], between))
