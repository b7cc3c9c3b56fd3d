"""Windows over a track, the frames of one subject in time order: which there are, and one value a frame from them.

A window counts rows, not frame numbers: where frames were lost the rows close up, and nothing is ever dropped.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import ConfigError
from .runtime import autocast
from .sampling import even_plane, even_subjects, lay_windows

if TYPE_CHECKING:
    from ...models.head import StreamState, TemporalHead

Predictor = Callable[[Tensor], Tensor]
"""Windows [b, t, f] to values [b, t, 2]."""

Balance = Literal["none", "subject", "plane"]


def window_starts(n: int, length: int, hop: int) -> list[int]:
    """Where the windows of a track of n rows begin; every row lies in at least one.

    A window every `hop` rows (at most `length`), and the last one shifted back so that it ends with the track. A track
    shorter than `length` is one window of n rows.
    """
    if length < 1 or hop < 1:
        raise ValueError(f"length is {length} and hop {hop}, expected at least 1")
    if n <= length:
        return [0] if n else []
    starts = list(range(0, n - length + 1, min(hop, length)))
    return starts if starts[-1] == n - length else [*starts, n - length]


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

    valid: of each track, bool [n], which rows are annotated; windows without one are left out. Windows lie end to end
    from a random offset that changes with the epoch, so each row comes about once. Each track's windows are spread
    evenly over the epoch, so every batch has about the same share of each subject.
    balance: `subject` evens them out over the tracks, `plane` over the plane of targets (of each track, float32
    [n, 2]); k stays about the same, and rows may come more than once, or not at all.
    """
    rng = np.random.default_rng([seed, epoch])
    if balance == "subject":
        drawn: Iterable[NDArray[np.int64]] = even_subjects(valid, length, rng)
    elif balance == "plane":
        drawn = even_plane(valid, targets, length, rng)
    else:
        drawn = (lay_windows(rows, length, rng) for rows in valid)
    pieces, order = [np.empty((0, 2), np.int64)], [np.empty(0)]
    for track, starts in enumerate(drawn):
        k = len(starts)
        pieces.append(np.stack((np.full(k, track), starts), 1))
        order.append((rng.permutation(k) + rng.random(k)) / max(1, k))
    return np.concatenate(pieces)[np.argsort(np.concatenate(order), kind="stable")]


class OverlapAverage:
    """Predicts a track as it arrives, however long: each row's values are the mean over all windows that hold it.

    predict: Predictor. Give rows with `push`, which returns the values that are final, in order; `finish` returns the
    rest. All in all there is exactly one value a row, and the windows are those of `window_starts`. Memory does not
    grow: at most about two windows and what one push brings.
    """

    def __init__(self, predict: Predictor, length: int, hop: int, *, batch: int = 64) -> None:
        if length < 1 or hop < 1:
            raise ValueError(f"length is {length} and hop {hop}, expected at least 1")
        self._predict, self._length, self._hop, self._batch = predict, length, min(hop, length), batch
        self._rows: Tensor | None = None
        self._sum = np.zeros((0, 2))
        self._count = np.zeros(0)
        self._first = 0  # the row that _rows, _sum and _count begin with
        self._given = 0  # the first row whose value has not been returned
        self._next = 0  # where the next window starts
        self._last = 0  # where the latest window ended

    @property
    def pushed(self) -> int:
        """Rows so far."""
        return self._first + (0 if self._rows is None else len(self._rows))

    def push(self, rows: Tensor) -> NDArray[np.float32]:
        """rows: [k, f], the next ones. Returns float32 [m, 2], the values of the rows that have become final."""
        self._rows = rows if self._rows is None else torch.cat((self._rows, rows))
        self._sum = np.concatenate((self._sum, np.zeros((len(rows), 2))))
        self._count = np.concatenate((self._count, np.zeros(len(rows))))
        starts = list(range(self._next, self.pushed - self._length + 1, self._hop))
        self._run(starts)
        self._next += self._hop * len(starts)
        # The last window may reach back to `length` rows before the end, wherever that will be.
        return self._give(min(self._next, self.pushed - self._length))

    def finish(self) -> NDArray[np.float32]:
        """The track has ended. Returns float32 [m, 2], the values not returned before."""
        if self._last < self.pushed:
            self._run([max(0, self.pushed - self._length)])
        return self._give(self.pushed)

    def _run(self, starts: list[int]) -> None:
        if self._rows is None:
            return
        for at in range(0, len(starts), self._batch):
            some = [start - self._first for start in starts[at : at + self._batch]]
            windows = torch.stack([self._rows[start : start + self._length] for start in some])
            values = self._predict(windows).double().cpu().numpy()
            for start, value in zip(some, values, strict=True):
                self._sum[start : start + len(value)] += value
                self._count[start : start + len(value)] += 1
                self._last = self._first + start + len(value)

    def _give(self, end: int) -> NDArray[np.float32]:
        a, b = self._given - self._first, max(self._given, end) - self._first
        values = (self._sum[a:b] / self._count[a:b, None]).astype(np.float32)
        self._given += b - a
        drop = min(self._given, self._next, self.pushed - self._length) - self._first
        if drop > 0 and self._rows is not None:
            self._rows, self._sum, self._count = self._rows[drop:], self._sum[drop:], self._count[drop:]
            self._first += drop
        return values


class Carried:
    """Predicts a track as it arrives by a head that looks back only: each row once, with what it remembers of all rows
    before. Memory does not grow. The same interface as OverlapAverage."""

    def __init__(self, head: "TemporalHead", device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        self._head, self._device, self._dtype = head, device, dtype
        self._state: StreamState | None = None

    def push(self, rows: Tensor) -> NDArray[np.float32]:
        """rows: [k, f], the next ones. Returns float32 [k, 2], their values."""
        if not len(rows):
            return np.empty((0, 2), np.float32)
        with torch.no_grad(), autocast(self._device, self._dtype):
            output, self._state = self._head.step(rows[None].to(self._device, torch.float32), self._state)
        return output.frame[0].float().cpu().numpy()

    def finish(self) -> NDArray[np.float32]:
        """The track has ended: all has been said, and what comes next is another track."""
        self._state = None
        return np.empty((0, 2), np.float32)


def track_reader(
    head: nn.Module,
    length: int,
    hop: int,
    *,
    carry: bool = False,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    batch: int = 64,
) -> OverlapAverage | Carried:
    """What turns a track's features into one value a row: averaged windows, or with `carry` the head's own memory.

    Raises ConfigError where carry is asked of a head that looks ahead."""
    if not carry:
        return OverlapAverage(head_predictor(head, device, dtype), length, hop, batch=batch)
    if getattr(head, "bidirectional", True):
        raise ConfigError(
            "clip.carry is true, and the head looks ahead",
            "Train one with head.bidirectional=false, or set clip.carry=false.",
        )
    return Carried(cast("TemporalHead", head), device, dtype)


def head_predictor(head: nn.Module, device: torch.device, dtype: torch.dtype = torch.float32) -> Predictor:
    """The head as an OverlapAverage wants it; it has to be in eval mode. Features may be float16 and on any device."""

    def predict(windows: Tensor) -> Tensor:
        with torch.no_grad(), autocast(device, dtype):
            return head(windows.to(device, torch.float32)).frame.float()

    return predict


def predict_track(
    head: nn.Module,
    features: Tensor,
    length: int,
    hop: int,
    *,
    carry: bool = False,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    batch: int = 64,
) -> NDArray[np.float32]:
    """Values of each row of a track. features: [n, f], float16 or float32. Returns float32 [n, 2]."""
    reader = track_reader(head, length, hop, carry=carry, device=device, dtype=dtype, batch=batch)
    return np.concatenate([*(reader.push(rows) for rows in features.split(4096)), reader.finish()])
