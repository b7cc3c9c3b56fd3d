"""Tracks of raw frames for end-to-end training, and the prediction of a whole track."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..records import Region
from .augment import NO_WINDOW_CHANGE, draw_window_changes
from .distributed import own_share
from .prefetch import prefetch
from .runtime import Compute
from .windows import Balance, Reader, draw_windows

if TYPE_CHECKING:
    from ...models.affect_net import AffectNet


@dataclass(frozen=True)
class FrameTrack:
    """One subject's frames in time order.

    frames: returns uint8 [k, 3, s, s] for rows [k]. index: int64 [n]. time: float64 [n]. target: float32 [n, 2].
    valid: bool [n]. theta: float32 [n, 2, 3], known face boxes for the crop; None: the STN finds them.
    boxes: float32 [n, 2, 3] and boxed: bool [n], the true boxes and which frames have one; None: no boxes.
    """

    subject: str
    frames: Callable[[NDArray[np.int64]], Tensor]
    region: Region
    index: NDArray[np.int64]
    time: NDArray[np.float64]
    target: NDArray[np.float32]
    valid: NDArray[np.bool_]
    theta: NDArray[np.float32] | None = None
    boxes: NDArray[np.float32] | None = None
    boxed: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True)
class FrameBatch:
    """Windows of raw frames. The m present frames of all windows are stored one after the other.

    frames: uint8 [m, 3, s, s]. window: int64 [m], window of each frame. region: float32 [m, 4]. theta: [m, 2, 3], known
    face boxes, or None. boxes: float32 [m, 2, 3], boxed: bool [m]; known: bool [m], whether the subject has boxes.
    present, valid: bool [b, t]. target: float32 [b, t, 2]. change: float32 [b, 9], see draw_window_changes.
    """

    frames: Tensor
    window: Tensor
    region: Tensor
    theta: Tensor | None
    boxes: Tensor
    boxed: Tensor
    known: Tensor
    present: Tensor
    valid: Tensor
    target: Tensor
    change: Tensor

    def to(self, device: torch.device) -> "FrameBatch":
        moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in vars(self).items()}
        return FrameBatch(**moved)


@dataclass(frozen=True)
class FrameBatches:
    """The training windows of an epoch in `count` batches, decoded in threads by prefetching.

    balance: see draw_windows. Several processes share each batch. The augmentation depends on the seed, the epoch and
    the number of the window in the epoch, not on the number of processes.
    """

    tracks: Sequence[FrameTrack]
    length: int
    count: int
    seed: int
    epoch: int
    balance: Balance = "none"

    def __iter__(self) -> Iterator[FrameBatch]:
        return self.after(0)

    def after(self, first: int) -> Iterator[FrameBatch]:
        """The batches from number `first` on."""
        windows = draw_windows(
            [track.valid for track in self.tracks], self.length, self.seed, self.epoch,
            balance=self.balance, targets=[track.target for track in self.tracks],
        )  # fmt: skip
        changes = draw_window_changes(len(windows), np.random.default_rng([self.seed, self.epoch, 2]))
        rows = np.arange(len(windows))
        parts = [own_share(part) for part in np.array_split(rows, self.count) if len(part)]

        def make(share: tuple[NDArray[np.int64], bool]) -> FrameBatch:
            part, counts = share
            return read_windows(self.tracks, windows[part], self.length, changes[part], counts=counts)

        return prefetch(parts[first:], make, threads=4)


def read_windows(
    tracks: Sequence[FrameTrack],
    windows: NDArray[np.int64],
    length: int,
    change: NDArray[np.float32] | None = None,
    *,
    counts: bool = True,
) -> FrameBatch:
    """windows: int64 [b, 2], (track, start). change: see draw_window_changes; None: none. counts: False marks no frame
    as valid or boxed, so the batch does not contribute to the loss."""
    b = len(windows)
    present, valid, target = (
        np.zeros((b, length), bool),
        np.zeros((b, length), bool),
        np.zeros((b, length, 2), np.float32),
    )
    frames, window, region, theta, boxes, boxed, known = [], [], [], [], [], [], []
    for place, (number, start) in enumerate(windows.tolist()):
        track = tracks[number]
        rows = np.arange(start, min(start + length, len(track)))
        n = len(rows)
        present[place, :n], valid[place, :n], target[place, :n] = True, track.valid[rows], track.target[rows]
        frames.append(track.frames(rows))
        window.append(np.full(n, place))
        region.append(np.tile(np.array(track.region, np.float32), (n, 1)))
        if track.theta is not None:
            theta.append(track.theta[rows])
        has_boxes = track.boxes is not None and track.boxed is not None
        known.append(np.full(n, has_boxes))
        boxes.append(track.boxes[rows] if track.boxes is not None else np.zeros((n, 2, 3), np.float32))
        boxed.append(track.boxed[rows] if track.boxed is not None else np.zeros(n, bool))
    if not counts:
        valid, boxed, known = valid & False, [rows & False for rows in boxed], [rows | True for rows in known]
    if change is None:
        change = np.tile(NO_WINDOW_CHANGE, (b, 1))
    joined = [torch.from_numpy(np.concatenate(pieces)) for pieces in (window, region, boxes, boxed, known)]
    return FrameBatch(
        torch.cat(frames), joined[0], joined[1], torch.from_numpy(np.concatenate(theta)) if theta else None,
        *joined[2:], *(torch.from_numpy(array) for array in (present, valid, target, change)),
    )  # fmt: skip


@dataclass(frozen=True)
class FramePrediction:
    """A prediction from raw frames. values: float32 [n, 2]. theta: float32 [n, 2, 3], the face boxes."""

    values: NDArray[np.float32]
    theta: NDArray[np.float32]


@torch.no_grad()
def predict_frames(
    net: "AffectNet", track: FrameTrack, reader: Reader, compute: Compute, *, batch: int
) -> FramePrediction:
    """Values and boxes of each frame of a track. Memory does not grow with its length.

    net: on the device, in eval mode. reader: of the head, see track_reader. batch: frames per forward pass.
    """
    values, thetas = [], []
    pieces = [np.arange(start, min(start + batch, len(track))) for start in range(0, len(track), batch)]
    region = torch.tensor([track.region], device=compute.device)
    for rows, frames in zip(pieces, prefetch(pieces, track.frames, depth=2), strict=True):
        known = None if track.theta is None else torch.from_numpy(track.theta[rows]).to(compute.device)
        with compute.autocast():
            encoding = net.encode(frames.to(compute.device), region.expand(len(rows), 4), known)
        values.append(reader.push(encoding.feature.float()))
        thetas.append(encoding.theta.float().cpu().numpy())
    values.append(reader.finish())
    empty = np.empty((0, 2, 3), np.float32)
    return FramePrediction(np.concatenate(values), np.concatenate([empty, *thetas]))
