"""Tracks: cached features and annotations of each subject, and batches of windows for training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ShardError
from ..storage.shard import FEATURES, Shard, read_rows
from .distributed import own_share
from .prefetch import prefetch
from .runtime import free_memory
from .windows import Balance, draw_windows

MAX_STATISTICS_FRAMES = 1 << 16
"""Frames for the statistics of the features. Of a larger set, evenly spaced frames are read."""
STRIDE = 64
"""Frames per read for the statistics: a chunk of a shard."""


@dataclass(frozen=True)
class Track:
    """One subject's frames in time order. index: int64 [n], frame numbers, with gaps for lost frames.
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
    """The annotations in a feature shard. Raises ShardError, also if the frames are not in time order."""
    with Shard(path, FEATURES) as shard:
        track = Track(path.stem, path, *(shard.read(name) for name in ("index", "pts", "target", "valid")))
    if len(track) and (np.diff(track.index) <= 0).any():
        raise ShardError(f"{path}: the frames are not in time order", "Run `affect cache-features` again.")
    return track


@dataclass(frozen=True)
class Batch:
    """Windows, padded at their end. features: float32 [b, t, f]. target: float32 [b, t, 2]. present, valid: bool
    [b, t], True for a frame (not padding), and for an annotated frame."""

    features: Tensor
    target: Tensor
    present: Tensor
    valid: Tensor


class FeatureTracks:
    """The features of some subjects, as float16 on the device or in memory if they fit. Otherwise each read is from
    disk.

    memory: limit in bytes; None: half of the free memory of the device, then half of the free RAM. So all of Aff-Wild2
    (12 GB) is read only once if there is memory. The location does not change the results.
    """

    def __init__(self, tracks: Sequence[Track], device: torch.device, *, memory: int | None = None) -> None:
        self.tracks = tuple(tracks)
        self.device = device
        self._offset = np.concatenate(([0], np.cumsum([len(track) for track in tracks]))).astype(np.int64)
        self.views, self.width = _shape(self.tracks)
        device_or_none = self._storage(memory)
        self._loaded = None if device_or_none is None else self._load_all(device_or_none)

    def __len__(self) -> int:
        """Number of frames of all tracks."""
        return int(self._offset[-1])

    def features(self, track: int, start: int = 0, stop: int | None = None, view: int = 0) -> Tensor:
        """float16 [n, f], the rows start to stop of a track."""
        n = len(self.tracks[track])
        stop = n if stop is None else min(stop, n)
        if self._loaded is not None:
            first = view * len(self) + int(self._offset[track])
            return self._loaded[first + start : first + stop]
        return torch.from_numpy(read_rows(self.tracks[track].path, _view(view), start, stop))

    def batches(
        self, length: int, count: int, seed: int, epoch: int, *, balance: Balance = "none", speed: float = 0.0
    ) -> Iterator[Batch]:
        """The training windows of an epoch, in `count` batches. Each window has a random view and a random speed.

        balance: see draw_windows. speed: a window covers from 1 / (1 + speed) to 1 + speed times `length` rows and
        keeps `length` evenly spaced rows of them, for features, targets and masks; 0: consecutive rows.
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
        if self._loaded is not None:
            return (self._batch(*part) for part in parts)
        return prefetch(parts, lambda part: self._batch(*part))

    def count_windows(self, length: int) -> int:
        """Approximate number of training windows in an epoch; the exact number depends on the random offsets."""
        return len(draw_windows([track.valid for track in self.tracks], length, 0, 0))

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each feature, float32 [f], over about MAX_STATISTICS_FRAMES frames at most.
        Summed in float64."""
        total = torch.zeros(self.width, dtype=torch.float64, device=self.device)
        squares, count = torch.zeros_like(total), 0
        for rows in prefetch(self._sample(), lambda piece: self.features(*piece)):
            for part in rows.split(4096):
                part = part.to(self.device, torch.float64)
                total += part.sum(0)
                squares += part.square().sum(0)
                count += len(part)
        mean = total / max(1, count)
        return mean.float(), (squares / max(1, count) - mean.square()).clamp(min=0).sqrt().float()

    def _sample(self) -> Iterator[tuple[int, int, int]]:
        """(track, start, stop) of all frames, or of evenly spaced pieces with about MAX_STATISTICS_FRAMES frames in
        total."""
        if len(self) <= MAX_STATISTICS_FRAMES:
            yield from ((number, 0, len(track)) for number, track in enumerate(self.tracks))
            return
        every = -(-len(self) // MAX_STATISTICS_FRAMES)
        pieces = ((n, at, at + STRIDE) for n, track in enumerate(self.tracks) for at in range(0, len(track), STRIDE))
        yield from islice(pieces, 0, None, every)

    def _rows(self, windows: NDArray[np.int64], rates: NDArray[np.float64], length: int) -> NDArray[np.int64]:
        """int64 [k, length]: the rows of each window; rows after the end of the track are padding. A fast window starts
        earlier if it would not fit."""
        lengths = np.array([len(self.tracks[track]) for track in windows[:, 0]], np.int64)
        steps = np.rint(rates[:, None] * np.arange(length)).astype(np.int64)
        latest = np.maximum(0, lengths - 1 - steps[:, -1])
        return np.minimum(windows[:, 1], latest)[:, None] + steps

    def _own(self, part: NDArray[np.int64], rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """This process's share of the windows of a batch. If there is none, a window after the end, without frames."""
        own, counts = own_share(np.arange(len(part)))
        own_rows = rows[own]
        return part[own], own_rows if counts else np.full_like(own_rows, len(self.tracks[part[own[0], 0]]))

    def _batch(self, part: NDArray[np.int64], rows: NDArray[np.int64]) -> Batch:
        lengths = np.array([len(self.tracks[track]) for track in part[:, 0]])
        present = rows < lengths[:, None]
        target = np.zeros((*rows.shape, 2), np.float32)
        valid = np.zeros(rows.shape, bool)
        for window, number in enumerate(part[:, 0].tolist()):
            track, inside = self.tracks[number], present[window]
            target[window, inside] = track.target[rows[window, inside]]
            valid[window, inside] = track.valid[rows[window, inside]]
        on_device = (torch.from_numpy(array).to(self.device) for array in (target, present, valid))
        return Batch(self._gather(part, rows, lengths).to(self.device).float(), *on_device)

    def _gather(self, part: NDArray[np.int64], rows: NDArray[np.int64], lengths: NDArray[np.int64]) -> Tensor:
        if self._loaded is not None:
            inside = np.minimum(rows, lengths[:, None] - 1)
            flat = torch.from_numpy(part[:, 2, None] * len(self) + self._offset[part[:, 0], None] + inside)
            return self._loaded[flat.to(self._loaded.device)]
        features = torch.zeros(*rows.shape, self.width, dtype=torch.float16)
        for window, (track, _, view) in enumerate(part.tolist()):
            inside = rows[window][rows[window] < lengths[window]]
            piece = self.features(track, int(inside[0]), int(inside[-1]) + 1, view)
            features[window, : len(inside)] = piece[torch.from_numpy(inside - inside[0])]
        return features

    def _storage(self, memory: int | None) -> torch.device | None:
        size = 2 * self.views * len(self) * self.width
        if memory is not None:
            return torch.device("cpu") if size <= memory else None
        for place in (self.device, torch.device("cpu")):
            if size <= free_memory(place) // 2:
                return place
        return None

    def _load_all(self, place: torch.device) -> Tensor:
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
    """(number of views in all shards, width of a feature)."""
    shapes: set[tuple[int, int]] = set()
    for track in tracks:
        with Shard(track.path, FEATURES) as shard:
            views = sum(name == "feature" or name.startswith("feature_") for name in shard.names)
            shapes.add((views, shard.read("feature", 0, 1).shape[1]))
    widths = {width for _, width in shapes}
    if len(widths) > 1:
        raise ShardError(
            f"the feature shards have widths {sorted(widths)}, expected one width", "Run `affect cache-features` again."
        )
    return min((views for views, _ in shapes), default=1), max(widths, default=0)
