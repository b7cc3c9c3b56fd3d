"""An ensemble of models. Each distinct encoder processes a frame once; the smoothed outputs of all heads are averaged.

A single model is an ensemble with one encoder and one head.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...configs.schema import Clip
from ...models.affect_net import AffectNet
from ...models.backbone import fold
from ...models.head import TemporalHead
from ..errors import WeightsError
from ..learning.model_file import ModelInfo, load_model, read_model_info
from ..learning.runtime import Compute
from ..learning.smoothing import Smoother
from ..learning.windows import Reader, track_reader

FEATURE_SIZE = 2048
"""Features of one encoder."""


class AveragingReader:
    """Reads a track of features with several readers, smooths the output of each, and returns the mean per row.

    readers: for each reader, its columns of the features, the reader, and its smoother. Memory does not grow with the
    track: outputs are kept only until the slowest reader has caught up.
    """

    def __init__(self, readers: Sequence[tuple[slice, Reader, Smoother]]) -> None:
        self._readers = tuple(readers)
        self._seen = [np.empty(0, bool) for _ in readers]
        self._pending = [np.empty((0, 2), np.float32) for _ in readers]

    def push(self, rows: Tensor, seen: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """Takes the next rows [k, f] and returns the values that have become final, float32 [m, 2].

        seen: bool [k], whether the frame shows a face. The smoothing ignores the other rows, and a row without any
        usable neighbour becomes NaN.
        """
        seen = np.ones(len(rows), bool) if seen is None else seen
        for number, (columns, reader, _) in enumerate(self._readers):
            self._seen[number] = np.concatenate((self._seen[number], seen))
            self._smooth(number, reader.push(rows[:, columns]))
        return self._pop_final()

    def finish(self) -> NDArray[np.float32]:
        """Ends the track and returns the remaining values, float32 [m, 2]."""
        for number, (_, reader, smoother) in enumerate(self._readers):
            self._smooth(number, reader.finish())
            self._pending[number] = np.concatenate((self._pending[number], smoother.finish().reshape(-1, 2)))
        return self._pop_final()

    def _smooth(self, number: int, values: NDArray[np.float32]) -> None:
        seen, self._seen[number] = np.split(self._seen[number], [len(values)])
        smoothed = self._readers[number][2].push(np.where(seen[:, None], values, np.nan))
        self._pending[number] = np.concatenate((self._pending[number], smoothed))

    def _pop_final(self) -> NDArray[np.float32]:
        """The mean of the rows for which every reader has a value."""
        ready = min(map(len, self._pending))
        mean = np.stack([values[:ready] for values in self._pending]).astype(np.float64).mean(0)
        self._pending = [values[ready:] for values in self._pending]
        return mean.astype(np.float32)


@dataclass(frozen=True)
class Ensemble:
    """Models on their device, in eval mode.

    encoders: each distinct encoder once, the first model's first, and whether its STN was trained to find faces.
    heads: for each model, the index of its encoder, its head, clip length and smoothing.
    """

    encoders: tuple[tuple[AffectNet, bool], ...]
    heads: tuple[tuple[int, TemporalHead, int, Mapping[str, Any]], ...]

    def columns(self) -> list[tuple[slice, TemporalHead]]:
        """The columns of the features that each head reads."""
        return [(_columns(encoder), head) for encoder, head, *_ in self.heads]

    def reader(self, clip: Clip, compute: Compute) -> AveragingReader:
        """A reader for one track of features [n, 2048 * encoders], with the encoders' features side by side.

        clip: gives hop and carry; the length comes from each model.
        """
        return AveragingReader(
            [
                (
                    _columns(encoder),
                    track_reader(head, clip.model_copy(update={"length": length}), compute),
                    Smoother(smoothing["kind"], smoothing["width"]),
                )
                for encoder, head, length, smoothing in self.heads
            ]
        )


def _columns(encoder: int) -> slice:
    return slice(encoder * FEATURE_SIZE, (encoder + 1) * FEATURE_SIZE)


def describe_models(models: Sequence[Path]) -> list[ModelInfo]:
    """The descriptions of models to average. Raises WeightsError if they need frames of different sizes."""
    infos = [read_model_info(path) for path in models]
    sizes = [info.frame_size for info in infos]
    for path, size in zip(models, sizes, strict=True):
        if size != sizes[0]:
            raise WeightsError(
                f"{models[0]} needs frames of {sizes[0]} pixels, {path} needs {size}",
                "Average only models with the same frames.size.",
            )
    return infos


def load_ensemble(models: Sequence[Path], device: torch.device) -> Ensemble:
    """Loads the models of these run folders or files, with folded batch norms. Raises WeightsError."""
    encoders: dict[str, tuple[AffectNet, bool]] = {}
    heads = []
    for path in models:
        net, info = load_model(path)
        if info.encoder not in encoders:
            fold(net.backbone)
            encoders[info.encoder] = (net.to(device), info.localiser == "stn")
        encoder = list(encoders).index(info.encoder)
        heads.append((encoder, net.head.to(device), info.clip_length, info.smoothing))
    return Ensemble(tuple(encoders.values()), tuple(heads))
