"""Tracks: each subject's cached features beside its annotations, and the batches of windows that training wants."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ShardError
from ..storage.shard import FEATURES, Shard, read_rows
from .ahead import ahead
from .distributed import own_share
from .runtime import free_memory
from .windows import Balance, draw_windows

ENOUGH = 1 << 16
"""Frames that tell the statistics of a feature: of a longer set, evenly spread ones are read."""
STRIDE = 64
"""Frames of a set that are read in one piece for that: a chunk of a shard."""


@dataclass(frozen=True)
class Track:
    """One subject's frames in time order. index: int64 [n], frame numbers, with gaps where frames were lost.
    time: float64 [n] seconds. target: float32 [n, 2]. valid: bool [n]."""

    subject: str
    path: Path
    index: NDArray[np.int64]
    time: NDArray[np.float64]
    target: NDArray[np.float32]
    valid: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.index)


def read_track(path: Path) -> Track:
    """The annotations in a feature shard. Raises ShardError, also where the frames are not in time order."""
    with Shard(path, FEATURES) as shard:
        track = Track(path.stem, path, *(shard.read(name) for name in ("index", "pts", "target", "valid")))
    if len(track) and (np.diff(track.index) <= 0).any():
        raise ShardError(f"{path}: its frames are not in time order", "Run `affect cache-features` again.")
    return track


@dataclass(frozen=True)
class Batch:
    """Windows, padded at their end. features: float32 [b, t, f]. target: float32 [b, t, 2]. present, valid: bool
    [b, t], where there is a frame, and where an annotated one."""

    features: Tensor
    target: Tensor
    present: Tensor
    valid: Tensor


class FeatureTracks:
    """The features of some subjects: as float16 on the device or in memory where they fit, else read when wanted.

    memory: bytes they may take; None: half of what is free on the device, else half of what is free in memory, so that
    the whole of Aff-Wild2 (12 GB) is read once where there is room. Where they lie changes nothing else.
    """

    def __init__(self, tracks: Sequence[Track], device: torch.device, *, memory: int | None = None) -> None:
        self.tracks = tuple(tracks)
        self.device = device
        self._offset = np.concatenate(([0], np.cumsum([len(track) for track in tracks]))).astype(np.int64)
        self.views, self.width = _shape(self.tracks)
        place = self._place(memory)
        self._held = None if place is None else self._hold(place)

    def __len__(self) -> int:
        """Frames of all tracks."""
        return int(self._offset[-1])

    def features(self, track: int, start: int = 0, stop: int | None = None, view: int = 0) -> Tensor:
        """float16 [n, f], the rows start to stop of a track."""
        n = len(self.tracks[track])
        stop = n if stop is None else min(stop, n)
        if self._held is not None:
            first = view * len(self) + int(self._offset[track])
            return self._held[first + start : first + stop]
        return torch.from_numpy(read_rows(self.tracks[track].path, _view(view), start, stop))

    def batches(
        self, length: int, count: int, seed: int, epoch: int, *, balance: Balance = "none", speed: float = 0.0
    ) -> Iterator[Batch]:
        """The training windows of an epoch, in `count` batches; each window in a view and at a speed drawn for it.

        balance: see draw_windows. speed: a window takes in from 1 / (1 + speed) to 1 + speed times `length` rows, from
        which `length` evenly spaced ones are kept, features, targets and masks alike; 0: just the rows.
        """
        windows = draw_windows(
            [track.valid for track in self.tracks], length, seed, epoch,
            balance=balance, targets=[track.target for track in self.tracks],
        )  # fmt: skip
        views = np.random.default_rng([seed, epoch, 1]).integers(self.views, size=(len(windows), 1))
        rates = (1 + speed) ** np.random.default_rng([seed, epoch, 2]).uniform(-1, 1, len(windows))
        picked = np.concatenate((windows, views), 1)
        rows = self._rows(windows, rates if speed else np.ones(len(windows)), length)
        parts = [
            self._own(picked[part], rows[part]) for part in np.array_split(np.arange(len(windows)), count) if len(part)
        ]
        if self._held is not None:
            return (self._batch(*part) for part in parts)
        return ahead(parts, lambda part: self._batch(*part))

    def count_windows(self, length: int) -> int:
        """Training windows in an epoch; a few more or fewer, as the offsets fall."""
        return len(draw_windows([track.valid for track in self.tracks], length, 0, 0))

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each feature over the frames, or over ENOUGH of them: float32 [f]. Summed in
        float64."""
        total = torch.zeros(self.width, dtype=torch.float64, device=self.device)
        squares, count = torch.zeros_like(total), 0
        for rows in ahead(self._sample(), lambda piece: self.features(*piece)):
            for part in rows.split(4096):
                part = part.to(self.device, torch.float64)
                total += part.sum(0)
                squares += part.square().sum(0)
                count += len(part)
        mean = total / max(1, count)
        return mean.float(), (squares / max(1, count) - mean.square()).clamp(min=0).sqrt().float()

    def _sample(self) -> Iterator[tuple[int, int, int]]:
        """Pieces (track, start, stop): all of them, or every so many where they hold more than ENOUGH frames."""
        if len(self) <= ENOUGH:
            yield from ((number, 0, len(track)) for number, track in enumerate(self.tracks))
            return
        every = -(-len(self) // ENOUGH)
        pieces = [(n, at, at + STRIDE) for n, track in enumerate(self.tracks) for at in range(0, len(track), STRIDE)]
        yield from pieces[::every]

    def _rows(self, windows: NDArray[np.int64], rates: NDArray[np.float64], length: int) -> NDArray[np.int64]:
        """int64 [k, length]: the rows of each window, which may lie beyond the end of its track. A fast window, which
        takes in more rows, begins earlier where it would not fit."""
        lengths = np.array([len(self.tracks[track]) for track in windows[:, 0]], np.int64)
        steps = np.rint(rates[:, None] * np.arange(length)).astype(np.int64)
        latest = np.maximum(0, lengths - 1 - steps[:, -1])
        return np.minimum(windows[:, 1], latest)[:, None] + steps

    def _own(self, part: NDArray[np.int64], rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """This process's share of a batch's windows; where none is left for it, one past the end, without frames."""
        own, counts = own_share(np.arange(len(part)))
        kept = rows[own]
        return part[own], kept if counts else np.full_like(kept, len(self.tracks[part[own[0], 0]]))

    def _batch(self, part: NDArray[np.int64], rows: NDArray[np.int64]) -> Batch:
        lengths = np.array([len(self.tracks[track]) for track in part[:, 0]])
        present = rows < lengths[:, None]
        target = np.zeros((*rows.shape, 2), np.float32)
        valid = np.zeros(rows.shape, bool)
        for place, track in enumerate(part[:, 0].tolist()):
            known, there = self.tracks[track], present[place]
            target[place, there] = known.target[rows[place, there]]
            valid[place, there] = known.valid[rows[place, there]]
        on_device = (torch.from_numpy(array).to(self.device) for array in (target, present, valid))
        return Batch(self._gather(part, rows, lengths).to(self.device).float(), *on_device)

    def _gather(self, part: NDArray[np.int64], rows: NDArray[np.int64], lengths: NDArray[np.int64]) -> Tensor:
        if self._held is not None:
            inside = np.minimum(rows, lengths[:, None] - 1)
            flat = torch.from_numpy(part[:, 2, None] * len(self) + self._offset[part[:, 0], None] + inside)
            return self._held[flat.to(self._held.device)]
        features = torch.zeros(*rows.shape, self.width, dtype=torch.float16)
        for place, (track, _, view) in enumerate(part.tolist()):
            wanted = rows[place][rows[place] < lengths[place]]
            piece = self.features(track, int(wanted[0]), int(wanted[-1]) + 1, view)
            features[place, : len(wanted)] = piece[torch.from_numpy(wanted - wanted[0])]
        return features

    def _place(self, memory: int | None) -> torch.device | None:
        size = 2 * self.views * len(self) * self.width
        if memory is not None:
            return torch.device("cpu") if size <= memory else None
        for place in (self.device, torch.device("cpu")):
            if size <= free_memory(place) // 2:
                return place
        return None

    def _hold(self, place: torch.device) -> Tensor:
        held = torch.empty(self.views * len(self), self.width, dtype=torch.float16, device=place)
        for number, track in enumerate(self.tracks):
            with Shard(track.path, FEATURES) as shard:
                for view in range(self.views):
                    first = view * len(self) + int(self._offset[number])
                    held[first : first + len(track)] = torch.from_numpy(shard.read(_view(view))).to(place)
        return held


def _view(view: int) -> str:
    return f"feature_{view}" if view else "feature"


def _shape(tracks: Sequence[Track]) -> tuple[int, int]:
    """(views that every shard has, width of a feature)."""
    found: set[tuple[int, int]] = set()
    for track in tracks:
        with Shard(track.path, FEATURES) as shard:
            views = sum(name == "feature" or name.startswith("feature_") for name in shard.names)
            found.add((views, shard.read("feature", 0, 1).shape[1]))
    widths = {width for _, width in found}
    if len(widths) > 1:
        raise ShardError(f"feature shards are {sorted(widths)} wide, expected one width", "Cache the features again.")
    return min((views for views, _ in found), default=1), max(widths, default=0)
