"""A trained model on its device: what it says of frames, whoever asks. Command, Python and live all look through it."""

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...configs.schema import Config
from ...models.affect_net import Encoding
from ...models.head import StreamState
from ...models.several import find_several
from ...models.theta import corners_from_theta
from .ensemble import WIDTH, Averaged, describe_models, load_several
from .runtime import autocast, environment, keep_freed_memory, pick_device, pick_dtype, pieces
from .windows import head_predictor

READERS = ("decord", "decord2", "av", "opencv-python-headless")
"""The packages that decode what is looked at."""


class Seen(NamedTuple):
    """Of n frames. feature: float32 [n, 2048 an encoder], on the device. face: float32 [n], probability. box: float32
    [n, 4], x0 y0 x1 y1 in source pixels, within the picture. emotion: float32 [n, e], probabilities of e classes."""

    feature: Tensor
    face: NDArray[np.float32]
    box: NDArray[np.float32]
    emotion: NDArray[np.float32]


class Network:
    """A model in eval mode, or several whose values are averaged; boxes, faces, emotions and clips are the first one's.
    config: says device, precision, hop and batch; the rest is as the model was trained.

    size: side of the square frames that it wants. clip: frames in a clip. classes: of its backbone, in order. finds:
    whether its STN knows faces; else it looks at the whole picture.
    Raises WeightsError, DeviceError.
    """

    def __init__(self, model: Path | Sequence[Path], config: Config) -> None:
        models = [model] if isinstance(model, Path) else list(dict.fromkeys(model))
        metadata = describe_models(models)[0]
        self.config = config
        self.size: int = metadata["config"]["frames"]["size"]
        self.clip: int = metadata["clip"]["length"]
        self.classes: tuple[str, ...] = tuple(metadata["backbone"]["classes"])
        self.device = pick_device(config.runtime.device)
        self.dtype = pick_dtype(config.runtime.precision, self.device)
        keep_freed_memory(self.device)
        self.several = load_several(models, self.device)
        self.net, self.finds = self.several.encoders[0]

    def look(
        self, pixels: NDArray[np.uint8], width: int, height: int, region: NDArray[np.float32] | None = None
    ) -> Seen:
        """pixels: uint8 [n, size, size, 3], RGB, of a width x height video. region: [n, 4] x0 y0 x1 y1 as fractions of
        the picture, the part in which to look for the face; None: all of it."""
        parts = [
            self._encode(self._frames(pixels[rows]), None if region is None else region[rows])
            for rows in pieces(len(pixels), self.device)
        ]
        feature, theta, presence, logits = (torch.cat([part[k].float() for part in parts]) for k in range(4))
        shown = theta if self.finds else theta * (1 + self.net.stn.margin)
        box = _within(corners_from_theta(shown, width, height), width, height)
        return Seen(feature, *(part.cpu().numpy() for part in (presence, box, logits.softmax(1))))

    def _encode(self, frames: Tensor, region: NDArray[np.float32] | None) -> Encoding:
        part = None if region is None else torch.from_numpy(region).to(self.device)
        with torch.no_grad(), autocast(self.device, self.dtype):
            looks = [
                # An STN that was never trained says nothing of faces; the features were made from the whole picture.
                net.encode(frames, part, None if finds else net.stn.whole(len(frames)))
                for net, finds in self.several.encoders
            ]
        return looks[0]._replace(feature=torch.cat([look.feature.float() for look in looks], 1))

    def faces(self, pixels: NDArray[np.uint8], most: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of each frame, up to `most` places that look like different faces: boxes [n, most, 4] as fractions of the
        picture, and the probability of each [n, most], the likeliest first."""
        with torch.no_grad(), autocast(self.device, self.dtype):
            theta, presence = find_several(self.net.stn, self._frames(pixels), most)
            box = _within(corners_from_theta(theta.flatten(0, 1).float(), 1.0, 1.0), 1.0, 1.0)
        return box.view(-1, most, 4).cpu().numpy(), presence.float().cpu().numpy()

    def average(self) -> Averaged:
        """Reads one track of features as it arrives: windows of a clip's length, `clip.hop` apart, averaged, or by
        `clip.carry` the head's own memory; smoothed as the model wants it; and the mean over all models."""
        clip = self.config.clip
        return self.several.reader(clip.hop, clip.carry, self.device, self.dtype)

    def causal(self) -> Callable[[Tensor], NDArray[np.float32]]:
        """Reads one track frame by frame, knowing only what came before: feature [1, 2048] to valence and arousal [2],
        by the first model, and not smoothed: that would look ahead.

        A one-way LSTM carries its memory on. A bidirectional one reads a window of the last `clip` frames, and the
        window's last frame is the answer. Memory does not grow either way.
        """
        return _Carried(self) if not self.net.head.bidirectional else _Sliding(self)

    def environment(self) -> dict[str, Any]:
        """What it computes with, decoders included."""
        return environment(self.device, self.dtype, READERS)

    def _frames(self, pixels: NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device).permute(0, 3, 1, 2)


class _Carried:
    def __init__(self, network: Network) -> None:
        self._network, self._state = network, None

    _state: StreamState | None

    def __call__(self, feature: Tensor) -> NDArray[np.float32]:
        feature = feature[:, :WIDTH]
        with torch.no_grad(), autocast(self._network.device, self._network.dtype):
            output, self._state = self._network.net.head.step(feature[None], self._state)
        return output.frame[0, -1].float().cpu().numpy()


class _Sliding:
    def __init__(self, network: Network) -> None:
        self._network = network
        self._read = head_predictor(network.net.head, network.device, network.dtype)
        self._rows: deque[Tensor] = deque(maxlen=network.clip)

    def __call__(self, feature: Tensor) -> NDArray[np.float32]:
        self._rows.append(feature[0, :WIDTH])
        return self._read(torch.stack(list(self._rows))[None])[0, -1].cpu().numpy()


def _within(corners: Tensor, width: float, height: float) -> Tensor:
    return torch.minimum(corners.clamp(min=0), corners.new_tensor([width, height, width, height]))
