"""Several models as one: each distinct encoder looks at a frame once, each head reads its own encoder, and what
the heads say is smoothed and averaged. One model is the same with one head."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...models.affect_net import AffectNet
from ...models.backbone import folded
from ...models.head import TemporalHead
from ..errors import WeightsError
from .model_file import load_model, read_model_metadata
from .smoothing import NONE, Smoother
from .windows import track_reader

WIDTH = 2048


class Reader(Protocol):
    """Values of a track's rows as its features arrive, see OverlapAverage."""

    def push(self, rows: Tensor) -> NDArray[np.float32]: ...

    def finish(self) -> NDArray[np.float32]: ...


class Averaged:
    """Reads a track of features by several readers, smooths what each says, and gives the mean, one value a row.

    readers: of each its columns of the features, itself, and its smoother. Memory does not grow with the track: what
    one has said waits only until the slowest one has said it too.
    """

    def __init__(self, readers: Sequence[tuple[slice, Reader, Smoother]]) -> None:
        self._readers = tuple(readers)
        self._seen = [np.empty(0, bool) for _ in readers]
        self._said = [np.empty((0, 2), np.float32) for _ in readers]

    def push(self, rows: Tensor, seen: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """rows: [k, f], the next ones. seen: bool [k], where there is a face; other rows do not count in smoothing, and
        are NaN where no neighbour counts. Returns float32 [m, 2], the values that have become final."""
        seen = np.ones(len(rows), bool) if seen is None else seen
        for number, (columns, reader, _) in enumerate(self._readers):
            self._seen[number] = np.concatenate((self._seen[number], seen))
            self._smooth(number, reader.push(rows[:, columns]))
        return self._give()

    def finish(self) -> NDArray[np.float32]:
        """The track has ended. Returns float32 [m, 2], the values not returned before."""
        for number, (_, reader, smoother) in enumerate(self._readers):
            self._smooth(number, reader.finish())
            self._said[number] = np.concatenate((self._said[number], smoother.finish().reshape(-1, 2)))
        return self._give()

    def _smooth(self, number: int, values: NDArray[np.float32]) -> None:
        seen, self._seen[number] = np.split(self._seen[number], [len(values)])
        smoothed = self._readers[number][2].push(np.where(seen[:, None], values, np.nan))
        self._said[number] = np.concatenate((self._said[number], smoothed))

    def _give(self) -> NDArray[np.float32]:
        ready = min(map(len, self._said))
        mean = np.stack([said[:ready] for said in self._said]).astype(np.float64).mean(0)
        self._said = [said[ready:] for said in self._said]
        return mean.astype(np.float32)


@dataclass(frozen=True)
class Several:
    """Models on their device, in eval mode. encoders: one of each kind, the first model's first; of each whether its
    STN was trained to find faces. heads: of each model which encoder it reads, its head, clip length and smoothing."""

    encoders: tuple[tuple[AffectNet, bool], ...]
    heads: tuple[tuple[int, TemporalHead, int, dict[str, Any]], ...]

    def reader(self, hop: int, carry: bool, device: torch.device, dtype: torch.dtype) -> Averaged:
        """For one track of features [n, 2048 a encoder], the encoders' side by side. hop, carry: see track_reader."""
        return Averaged(
            [
                (
                    slice(which * WIDTH, (which + 1) * WIDTH),
                    track_reader(head, length, hop, carry=carry, device=device, dtype=dtype),
                    Smoother(smoothing["kind"], smoothing["width"]),
                )
                for which, head, length, smoothing in self.heads
            ]
        )


def describe_models(models: Sequence[Path]) -> list[dict[str, Any]]:
    """The metadata of models that are to be averaged. Raises WeightsError where they want frames of different sizes."""
    described = [read_model_metadata(path) for path in models]
    sizes = [metadata["config"]["frames"]["size"] for metadata in described]
    for path, size in zip(models, sizes, strict=True):
        if size != sizes[0]:
            raise WeightsError(
                f"{models[0]} wants frames of {sizes[0]} pixels, {path} of {size}", "Average models of one frames.size."
            )
    return described


def load_several(models: Sequence[Path], device: torch.device) -> Several:
    """The models of these run folders or files, their norms folded. Raises WeightsError."""
    encoders: dict[str, tuple[AffectNet, bool]] = {}
    heads = []
    for path in models:
        net, metadata = load_model(path)
        finds = metadata["config"]["stn"]["localiser"] == "stn"
        if metadata["encoder"] not in encoders:
            net.backbone = folded(net.backbone)
            encoders[metadata["encoder"]] = (net.to(device), finds)
        which = list(encoders).index(metadata["encoder"])
        heads.append((which, net.head.to(device), metadata["clip"]["length"], metadata.get("smoothing", NONE)))
    return Several(tuple(encoders.values()), tuple(heads))
