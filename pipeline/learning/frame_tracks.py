"""Tracks of raw frames: what an AffectNet looks at end to end, and its predictions on a whole track."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..records import Region
from .ahead import ahead
from .distributed import own_share
from .runtime import autocast
from .windows import Balance, draw_windows, track_reader

if TYPE_CHECKING:
    from ...models.affect_net import AffectNet

CONTRAST, BRIGHTNESS = 0.2, 25.0
"""How far a training window's contrast (share) and brightness (of 255) are moved, either way."""
GREY, BLUR, ERASE = 0.1, 0.15, 0.15
"""Shares of the training windows that lose their colours, their sharpness, or a rectangle of each picture."""
MOST_BLUR = 0.012
"""The largest deviation of the blur, as a share of the crop's side."""
UNCHANGED = np.array([0, 1, 0, 0, 0, 0, 0, 0, 0], np.float32)
"""The change of draw_changes that changes nothing."""


@dataclass(frozen=True)
class FrameTrack:
    """One subject's frames in time order.

    frames: gives uint8 [k, 3, s, s] for rows [k]. index: int64 [n]. time: float64 [n]. target: float32 [n, 2].
    valid: bool [n]. theta: float32 [n, 2, 3], where to look if that is known; None: the STN says.
    boxes: float32 [n, 2, 3], boxed: bool [n], the true boxes and where there are any; None: none are known.
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
    """Windows of raw frames; the frames of all windows that are there lie one after the other, m in all.

    frames: uint8 [m, 3, s, s]. window: int64 [m], whose window each is. region: float32 [m, 4]. theta: [m, 2, 3] where
    to look, or None. boxes: float32 [m, 2, 3], boxed: bool [m]; known: bool [m], whether its subject has boxes at all.
    present, valid: bool [b, t]. target: float32 [b, t, 2]. change: float32 [b, 9], see draw_changes.
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
        moved = {name: it.to(device) if isinstance(it, Tensor) else it for name, it in vars(self).items()}
        return FrameBatch(**moved)


@dataclass(frozen=True)
class FrameBatches:
    """The training windows of an epoch in `count` batches, decoded in threads ahead of their use.

    balance: see draw_windows. Several processes share each batch. Colours follow from seed, epoch and the window's
    place in the epoch, whatever the number of processes.
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
        changes = draw_changes(len(windows), np.random.default_rng([self.seed, self.epoch, 2]))
        rows = np.arange(len(windows))
        parts = [own_share(part) for part in np.array_split(rows, self.count) if len(part)]

        def make(given: tuple[NDArray[np.int64], bool]) -> FrameBatch:
            part, counts = given
            return read_windows(self.tracks, windows[part], self.length, changes[part], counts=counts)

        return ahead(parts[first:], make, threads=4)


def draw_changes(n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """float32 [n, 9] for n windows, the same for all frames of one: whether flipped (0 or 1), the factor of contrast,
    what is added to brightness (of 255), whether grey (0 or 1), the deviation of the blur (share of the side; 0: none),
    and the rectangle that is erased: x0, y0, x1, y1 as shares of the crop."""
    flip = rng.random(n) < 0.5
    gain, lift = (far * (2 * rng.random(n) - 1) for far in (CONTRAST, BRIGHTNESS))
    grey = rng.random(n) < GREY
    blur = (rng.random(n) < BLUR) * rng.uniform(0.2, 1.0, n) * MOST_BLUR
    sides = (rng.random((n, 1)) < ERASE) * rng.uniform(0.1, 0.35, (n, 2))
    corner = rng.random((n, 2)) * (1 - sides)
    return np.column_stack((flip, 1 + gain, lift, grey, blur, corner, corner + sides)).astype(np.float32)


def read_windows(
    tracks: Sequence[FrameTrack],
    windows: NDArray[np.int64],
    length: int,
    change: NDArray[np.float32] | None = None,
    *,
    counts: bool = True,
) -> FrameBatch:
    """windows: int64 [b, 2], (track, start). change: see draw_changes; None: none. counts: False leaves no frame valid
    or boxed, so that nothing is learned from it."""
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
        has = track.boxes is not None and track.boxed is not None
        known.append(np.full(n, has))
        boxes.append(track.boxes[rows] if track.boxes is not None else np.zeros((n, 2, 3), np.float32))
        boxed.append(track.boxed[rows] if track.boxed is not None else np.zeros(n, bool))
    if not counts:
        valid, boxed, known = valid & False, [it & False for it in boxed], [it | True for it in known]
    if change is None:
        change = np.tile(UNCHANGED, (b, 1))
    joined = [torch.from_numpy(np.concatenate(pieces)) for pieces in (window, region, boxes, boxed, known)]
    return FrameBatch(
        torch.cat(frames), joined[0], joined[1], torch.from_numpy(np.concatenate(theta)) if theta else None,
        *joined[2:], *(torch.from_numpy(array) for array in (present, valid, target, change)),
    )  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """A prediction from raw frames. values: float32 [n, 2]. theta: float32 [n, 2, 3], where it looked."""

    values: NDArray[np.float32]
    theta: NDArray[np.float32]


@torch.no_grad()
def predict_frames(
    net: "AffectNet",
    track: FrameTrack,
    length: int,
    hop: int,
    *,
    carry: bool = False,
    device: torch.device,
    dtype: torch.dtype,
    batch: int = 64,
) -> Seen:
    """The values of every frame of a track, read piece by piece: the memory does not grow with its length.

    net: on the device, in eval mode.
    """
    reader = track_reader(net.head, length, hop, carry=carry, device=device, dtype=dtype)
    values, thetas = [], []
    pieces = [np.arange(start, min(start + batch, len(track))) for start in range(0, len(track), batch)]
    region = torch.tensor([track.region], device=device)
    for rows, frames in zip(pieces, ahead(pieces, track.frames, depth=2), strict=True):
        known = None if track.theta is None else torch.from_numpy(track.theta[rows]).to(device)
        with autocast(device, dtype):
            encoding = net.encode(frames.to(device), region.expand(len(rows), 4), known)
        values.append(reader.push(encoding.feature.float()))
        thetas.append(encoding.theta.float().cpu().numpy())
    values.append(reader.finish())
    empty = np.empty((0, 2, 3), np.float32)
    return Seen(np.concatenate(values), np.concatenate([empty, *thetas]))
