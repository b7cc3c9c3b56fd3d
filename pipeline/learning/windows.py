"""Windows over a track (the frames of one subject in time order), and one value per frame from overlapping windows.

Windows count rows, not frame numbers: lost frames leave no gap. Every row is in a window.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...configs.schema import Clip
from ..errors import ConfigError
from .runtime import Compute
from .sampling import balance_plane, balance_subjects, tile_windows

if TYPE_CHECKING:
    from ...models.head import StreamState, TemporalHead

WindowPredictor = Callable[[Tensor], Tensor]
"""Windows [b, t, f] to values [b, t, 2]."""

Balance = Literal["none", "subject", "plane"]


class Reader(Protocol):
    """Turns the features of a track into values as they arrive, see OverlapAverage."""

    def push(self, rows: Tensor, /) -> NDArray[np.float32]: ...

    def finish(self) -> NDArray[np.float32]: ...


def draw_windows(
    valid: Sequence[NDArray[np.bool_]],
    length: int,
    seed: int,
    epoch: int,
    *,
    balance: Balance = "none",
    targets: Sequence[NDArray[np.float32]] = (),
) -> NDArray[np.int64]:
    """The training windows of an epoch, shuffled: int64 [k, 2], (track, start).

    valid: for each track, bool [n], which rows are annotated. Windows without an annotated row are left out. Windows
    are end to end from a random offset that changes with the epoch, so each row is in about one window. The windows of
    a track are spread evenly over the epoch, so each batch has about the same share of each subject. balance: `subject`
    balances the windows over the tracks, `plane` over the valence-arousal plane (targets: for each track, float32 [n,
    2]). k stays about the same; some rows are in several windows or in none.
    """
    rng = np.random.default_rng([seed, epoch])
    if balance == "subject":
        drawn: Iterable[NDArray[np.int64]] = balance_subjects(valid, length, rng)
    elif balance == "plane":
        drawn = balance_plane(valid, targets, length, rng)
    else:
        drawn = (tile_windows(rows, length, rng) for rows in valid)
    pieces, order = [np.empty((0, 2), np.int64)], [np.empty(0)]
    for track, starts in enumerate(drawn):
        k = len(starts)
        pieces.append(np.stack((np.full(k, track), starts), 1))
        order.append((rng.permutation(k) + rng.random(k)) / max(1, k))
    return np.concatenate(pieces)[np.argsort(np.concatenate(order), kind="stable")]


class OverlapAverage:
    """Predicts a track as a stream: the values of a row are the mean over all windows that contain it.

    `push` takes rows and returns the values that are final, in order; `finish` returns the rest. Each row gets its
    values once. A window starts every `hop` rows (at most `length`), and the last one is moved back so that it ends
    with the track. A track shorter than `length` is one window. Memory does not grow with the track: it is about two
    windows and the rows of one push.
    """

    def __init__(self, predict: WindowPredictor, length: int, hop: int, *, batch: int = 64) -> None:
        if length < 1 or hop < 1:
            raise ValueError(f"length is {length} and hop {hop}, expected at least 1")
        self._predict, self._length, self._hop, self._batch = predict, length, min(hop, length), batch
        self._rows: Tensor | None = None
        self._sum = np.zeros((0, 2))
        self._count = np.zeros(0)
        self._first = 0  # first row of _rows, _sum and _count
        self._emitted = 0  # number of rows with returned values
        self._next = 0  # first row of the next window
        self._last = 0  # end of the last window

    @property
    def pushed(self) -> int:
        """Rows so far."""
        return self._first + (0 if self._rows is None else len(self._rows))

    def push(self, rows: Tensor) -> NDArray[np.float32]:
        """rows: [k, f], the next rows. Returns float32 [m, 2], the values that are now final."""
        self._rows = rows if self._rows is None else torch.cat((self._rows, rows))
        self._sum = np.concatenate((self._sum, np.zeros((len(rows), 2))))
        self._count = np.concatenate((self._count, np.zeros(len(rows))))
        starts = list(range(self._next, self.pushed - self._length + 1, self._hop))
        self._run(starts)
        self._next += self._hop * len(starts)
        # The end is unknown: the last window may start up to `length` rows before the current last row.
        return self._emit(min(self._next, self.pushed - self._length))

    def finish(self) -> NDArray[np.float32]:
        """Ends the track. Returns float32 [m, 2], the values not returned before."""
        if self._last < self.pushed:
            self._run([max(0, self.pushed - self._length)])
        return self._emit(self.pushed)

    def _run(self, starts: list[int]) -> None:
        if self._rows is None:
            return
        for at in range(0, len(starts), self._batch):
            offsets = [start - self._first for start in starts[at : at + self._batch]]
            windows = torch.stack([self._rows[offset : offset + self._length] for offset in offsets])
            values = self._predict(windows).double().cpu().numpy()
            for offset, value in zip(offsets, values, strict=True):
                self._sum[offset : offset + len(value)] += value
                self._count[offset : offset + len(value)] += 1
                self._last = self._first + offset + len(value)

    def _emit(self, end: int) -> NDArray[np.float32]:
        a, b = self._emitted - self._first, max(self._emitted, end) - self._first
        values = (self._sum[a:b] / self._count[a:b, None]).astype(np.float32)
        self._emitted += b - a
        drop = min(self._emitted, self._next, self.pushed - self._length) - self._first
        if drop > 0 and self._rows is not None:
            self._rows, self._sum, self._count = self._rows[drop:], self._sum[drop:], self._count[drop:]
            self._first += drop
        return values


class CarriedReader:
    """Predicts a track as a stream with a causal head, which carries its state from row to row. Memory does not grow.
    The same interface as OverlapAverage."""

    def __init__(self, head: "TemporalHead", compute: Compute) -> None:
        self._head, self._compute = head, compute
        self._state: StreamState | None = None

    def push(self, rows: Tensor) -> NDArray[np.float32]:
        """rows: [k, f], the next rows. Returns float32 [k, 2], their values."""
        if not len(rows):
            return np.empty((0, 2), np.float32)
        with torch.no_grad(), self._compute.autocast():
            output, self._state = self._head.step(rows[None].to(self._compute.device, torch.float32), self._state)
        return output.frame[0].float().cpu().numpy()

    def finish(self) -> NDArray[np.float32]:
        """Ends the track and resets the state for another track. Returns no values."""
        self._state = None
        return np.empty((0, 2), np.float32)


def track_reader(head: nn.Module, clip: Clip, compute: Compute, *, batch: int = 64) -> OverlapAverage | CarriedReader:
    """A Reader for the features of a track: averaged windows, or with `clip.carry` the state of a causal head. Raises
    ConfigError for `clip.carry` with a bidirectional head."""
    if not clip.carry:
        return OverlapAverage(head_predictor(head, compute), clip.length, clip.hop, batch=batch)
    if getattr(head, "bidirectional", True):
        raise ConfigError(
            "clip.carry is true, but the head is bidirectional, so it needs later frames",
            "Train a head with head.bidirectional=false, or set clip.carry=false.",
        )
    return CarriedReader(cast("TemporalHead", head), compute)


def head_predictor(head: nn.Module, compute: Compute) -> WindowPredictor:
    """The head as a WindowPredictor. It must be in eval mode. Features may be float16 and on any device."""

    def predict(windows: Tensor) -> Tensor:
        with torch.no_grad(), compute.autocast():
            return head(windows.to(compute.device, torch.float32)).frame.float()

    return predict


def predict_track(
    head: nn.Module, features: Tensor, clip: Clip, compute: Compute, *, batch: int = 64
) -> NDArray[np.float32]:
    """Values of each row of a track, not smoothed. features: [n, f], float16 or float32. Returns float32 [n, 2]."""
    return read_track_values(track_reader(head, clip, compute, batch=batch), features)


def read_track_values(reader: Reader, features: Tensor) -> NDArray[np.float32]:
    """The values of a whole track, float32 [n, 2], from a new reader. features: [n, f]."""
    return np.concatenate([*(reader.push(rows) for rows in features.split(4096)), reader.finish()])
