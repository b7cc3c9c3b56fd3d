"""Compares an exported model with the original: the largest differences, and the speed."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...configs.schema import Config
from ..errors import InputError, WeightsError
from ..faults import one_input
from ..inference.outputs import output_names
from ..ingest.video.decode import decoded
from ..records import Problem

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from ..inference.predictor import Predictor

    Arrays = Sequence[NDArray[np.float32]]

TOLERANCE = 1e-4
FRAMES = 16
"""Pictures per batch, and number of random pictures if no video is given."""
QUANTITIES = ("value", "theta", "presence", "feature")


def summary_line(row: dict[str, Any]) -> str:
    """The figures of one video as a line."""
    rates = ", ".join(f"{name} {rate:,.1f} frames/s" for name, rate in row["frames_per_second"].items())
    off = ", ".join(f"{name} {row[name]:.0e}" for name in QUANTITIES)
    return f"{row['video']}: {row['frames']} frames; largest differences: {off}; {rates}"


class Comparison:
    """One model and its exported files in `folder`. All run on the CPU in fp32."""

    def __init__(self, predictor: "Predictor", its_config: Config, folder: Path, formats: Sequence[str]) -> None:
        from .portable_file import OnnxModel, Pt2Model

        self.network, self.net, self.config = predictor, predictor.net, its_config
        self.runners: dict[str, dict[str, OnnxModel | Pt2Model]] = {}
        for form, name, kind in (("onnx", "onnxruntime", OnnxModel), ("pt2", "torch.export", Pt2Model)):
            if form in formats:
                self.runners[name] = {part: kind(folder / f"{part}.{form}") for part in ("encoder", "head")}

    def videos(self, files: Sequence[Path], *, deadline: float) -> tuple[list[dict[str, Any]], list[Problem]]:
        """The figures of each video, and the problems of videos that cannot be read. Raises WeightsError if a
        difference is above TOLERANCE."""
        size, rows, failed = self.config.frames.size, [], []
        if not files:
            rows.append(self._row("random pictures", [_random_pictures(size)]))
        for name, path in output_names(files):
            with one_input(name, failed):
                row = decoded(
                    path, size, lambda batches, name=name: self._row(name, (batch.pixels for batch in batches)),
                    batch=FRAMES, deadline=deadline,
                )  # fmt: skip
                rows.append(row)
        return rows, failed

    def _row(self, name: str, batches: "Iterable[NDArray[np.uint8]]") -> dict[str, Any]:
        """batches: of pixels, uint8 [n, s, s, 3]."""
        names = ("torch", *self.runners)
        seconds: dict[str, float] = dict.fromkeys(names, 0.0)
        features: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
        off: dict[str, float] = dict.fromkeys(QUANTITIES, 0.0)
        for pixels in batches:
            frames = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))  # uint8 [n, 3, s, s], RGB
            began = time.perf_counter()
            own = self._encode(frames)
            seconds["torch"] += time.perf_counter() - began
            features["torch"].append(own[0])
            scale = max(1.0, float(np.abs(own[0]).max()))
            for who, parts in self.runners.items():
                began = time.perf_counter()
                seen = parts["encoder"](frames)
                seconds[who] += time.perf_counter() - began
                features[who].append(seen[0])
                _widen(off, "feature", own[0] / scale, seen[0] / scale)
                _widen(off, "theta", own[1], seen[1])
                _widen(off, "presence", own[2], seen[2])
        count = sum(map(len, features["torch"]))
        if not count:
            raise InputError(f"{name}: has no frames", "Give another video.")
        value: dict[str, NDArray[np.float32]] = {}
        for who in names:
            began = time.perf_counter()
            value[who] = self._head(who, np.concatenate(features[who]))
            seconds[who] += time.perf_counter() - began
            _widen(off, "value", value["torch"], value[who])
        for what, most in off.items():
            if not most <= TOLERANCE:
                raise WeightsError(
                    f"{name}: {what} of the exported model differs from torch by {most:.1e}, allowed: {TOLERANCE:.0e}",
                    "No file was written. Install the versions in constraints.txt and export again.",
                )
        rates = {who: round(count / spent, 2) for who, spent in seconds.items()}
        return {"video": name, "frames": count, **off, "frames_per_second": rates}

    def _encode(self, frames: "NDArray[np.uint8]") -> "Arrays":
        import torch

        seen = self.network.encode(torch.from_numpy(frames))
        return seen.feature.numpy(), seen.theta.numpy(), seen.presence.numpy()

    def _head(self, who: str, features: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """Values [n, 2] of all frames: by windows, or frame by frame for a streaming head."""
        import torch

        from ...models.portable import streams
        from ..learning.windows import OverlapAverage, head_predictor

        head, clip = self.net.head, self.config.clip
        if streams(head):
            return np.concatenate(list(self._stream(who, features)))[:, 0]

        def predict(windows: "Tensor") -> "Tensor":
            return torch.from_numpy(self.runners[who]["head"](windows.numpy())[0])

        if len(features) < clip.length:  # the .pt2 file accepts windows of one length only
            features = np.resize(features, (clip.length, features.shape[1]))
        one = head_predictor(head, self.network.compute) if who == "torch" else predict
        average = OverlapAverage(one, clip.length, clip.hop)
        return np.concatenate((average.push(torch.from_numpy(features)), average.finish()))

    def _stream(self, who: str, features: "NDArray[np.float32]") -> "Iterable[NDArray[np.float32]]":
        import torch

        from ...models.portable import PortableStep

        state: Any = None if who == "torch" else [it.numpy() for it in PortableStep(self.net.head).start()]
        for row in features:
            if who == "torch":
                with torch.no_grad():
                    (frame, _), state = self.net.head.step(torch.from_numpy(row)[None, None], state)
                yield frame.numpy()[0]
            else:
                frame, _, *state = self.runners[who]["head"](row[None, None], *state)
                yield frame[0]


def _widen(off: dict[str, float], what: str, own: "NDArray[Any]", other: "NDArray[Any]") -> None:
    off[what] = max(off[what], float(np.abs(own - other).max()))


def _random_pictures(size: int) -> "NDArray[np.uint8]":
    """Random blobs of several sizes, always the same: uint8 [FRAMES, size, size, 3]."""
    draw = np.random.default_rng(0)
    pixels = np.zeros((FRAMES, size, size, 3))
    for cells in (2, 8, 32):
        rows = np.arange(size) * cells // size
        pixels += draw.random((FRAMES, cells, cells, 3))[:, rows][:, :, rows] * 85
    return pixels.astype(np.uint8)
