"""A trained model, or an ensemble, on its device. Every command and the Python API run models through `Predictor`."""

import copy
import math
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, SupportsFloat

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...configs.schema import Config
from ...models.affect_net import Encoding
from ...models.head import StreamState
from ...models.multi_face import detect_faces
from ...models.theta import add_margin, corners_from_theta
from ..errors import InputError
from ..ingest.video.decode import Decoding
from ..learning.frame_tracks import FrameTrack, predict_frames
from ..learning.model_file import read_reference
from ..learning.reference import describe
from ..learning.runtime import environment, keep_freed_memory, limit_spinning_late, pick_compute, pieces
from ..learning.windows import head_predictor, read_track_values
from ..processes import own_networks
from ..records import Region
from .ensemble import FEATURE_SIZE, AveragingReader, describe_models, load_ensemble
from .intervals import deviation_of, load_intervals

Side = int | NDArray[np.int64]
DECODER_PACKAGES = ("decord", "decord2", "av", "opencv-python-headless", "pillow")
"""Packages that decode videos and pictures. Their versions are recorded with the results."""


class FrameOutputs(NamedTuple):
    """The output of the encoders for n frames.

    feature: float32 [n, 2048 * encoders], on the device. face: float32 [n], probability. box: float32 [n, 4],
    x0 y0 x1 y1 in source pixels, clipped to the picture. emotion: float32 [n, e], probabilities of e classes.
    traits: float64 [n, 2 + models] for intervals, see Intervals.traits; without intervals [n, 0]. distance: float32
    [n], see Reference.distance; NaN without a reference.
    """

    feature: Tensor
    face: NDArray[np.float32]
    box: NDArray[np.float32]
    emotion: NDArray[np.float32]
    traits: NDArray[np.float64]
    distance: NDArray[np.float32]


class Predictor:
    """One model in eval mode, or several models whose values are averaged.

    With several models, boxes, face probabilities, emotions and clip length come from the first one.

    config: gives device, precision, hop and batch size. All other settings are those of the training.
    size: side of the square frames that the model takes. clip: frames in a clip. classes: classes of the backbone, in
    order. finds_faces: whether the STN was trained to find faces; if not, it uses the whole picture. intervals: None if
    a model has none. reference: of the first model's training faces, or None.

    Raises WeightsError and DeviceError. In a fork of a process that loaded a model, it and its methods raise
    ProcessError.
    """

    def __init__(self, model: Path | Sequence[Path], config: Config) -> None:
        own_networks()
        models = [model] if isinstance(model, Path) else list(dict.fromkeys(model))
        info = describe_models(models)[0]
        self.config = config
        self.size = info.frame_size
        self.clip = info.clip_length
        self.classes = info.classes
        self.compute = pick_compute(config.runtime)
        self.device = self.compute.device
        keep_freed_memory(self.device)
        limit_spinning_late(self.device)
        self.ensemble = load_ensemble(models, self.device)
        self.net, self.finds_faces = self.ensemble.encoders[0]
        self.intervals = load_intervals(models, info.config.model_copy(update={"predict": config.predict}), self.size)
        reference = read_reference(models[0])
        self.reference = None if reference is None else reference.to(self.device)

    def encode_pixels(
        self, pixels: NDArray[np.uint8], width: Side, height: Side, region: NDArray[np.float32] | None = None
    ) -> FrameOutputs:
        """Runs the encoders on decoded frames of a width x height video, or on pictures, each of its own size.

        pixels: uint8 [n, size, size, 3], RGB. width, height: of the source, an integer or int64 [n]. region: [n, 4],
        x0 y0 x1 y1 as fractions of the picture, where to search for the face; None means the whole picture.
        """
        own_networks()
        parts = [
            self.encode(self._frames(pixels[rows]), None if region is None else region[rows])
            for rows in pieces(len(pixels), self.device)
        ]
        feature, theta, presence, logits, texture = (torch.cat([part[k].float() for part in parts]) for k in range(5))
        # Without face detection, the box is the whole picture, and `stn.whole` has removed the margin from theta.
        box_theta = theta if self.finds_faces else add_margin(theta, self.net.stn.margin)
        w, h = (torch.as_tensor(side, dtype=torch.float32, device=self.device) for side in (width, height))
        corners = corners_from_theta(box_theta, w, h)
        box = torch.minimum(corners.clamp(min=0), torch.stack((w, h, w, h), -1))
        face, boxes, emotion = (part.cpu().numpy() for part in (presence, box, logits.softmax(1)))
        traits = self._traits(feature, boxes, emotion, height)
        return FrameOutputs(feature, face, boxes, emotion, traits, self._distance(texture, feature))

    def _distance(self, texture: Tensor, feature: Tensor) -> NDArray[np.float32]:
        if self.reference is None:
            return np.full(len(feature), np.nan, np.float32)
        with torch.no_grad():
            return self.reference.distance(describe(texture, feature[:, :FEATURE_SIZE])).cpu().numpy()

    def _traits(
        self, feature: Tensor, box: NDArray[np.float32], emotion: NDArray[np.float32], height: Side
    ) -> NDArray[np.float64]:
        if self.intervals is None:
            return np.empty((len(box), 0))
        deviation = [deviation_of(head, feature[:, columns]) for columns, head in self.ensemble.columns()]
        return self.intervals.traits(box, emotion, torch.stack(deviation, 1).cpu().numpy(), height)

    def encode(self, frames: Tensor, region: NDArray[np.float32] | None = None) -> Encoding:
        """Runs the encoders on frames that are on the device. Features of several encoders are side by side.

        frames: uint8 [n, 3, size, size], RGB. region: see `encode_pixels`.
        """
        part = None if region is None else torch.from_numpy(region).to(self.device)
        with torch.no_grad(), self.compute.autocast():
            encodings = [
                # With an untrained STN, the model was trained on features of the whole picture.
                net.encode(frames, part, None if finds_faces else net.stn.whole(len(frames)))
                for net, finds_faces in self.ensemble.encoders
            ]
        return encodings[0]._replace(feature=torch.cat([encoding.feature.float() for encoding in encodings], 1))

    def detect(self, pixels: NDArray[np.uint8], limit: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Finds up to `limit` different faces per frame, the most probable first.

        Returns boxes [n, limit, 4] as fractions of the picture, and probabilities [n, limit].
        """
        own_networks()
        with torch.no_grad(), self.compute.autocast():
            theta, presence = detect_faces(self.net.stn, self._frames(pixels), limit)
            box = corners_from_theta(theta.flatten(0, 1).float(), 1.0, 1.0).clamp(0, 1)
        return box.view(-1, limit, 4).cpu().numpy(), presence.float().cpu().numpy()

    def at_rate(self, fps: float) -> "Predictor":
        """A predictor with the same networks and another `predict.fps`. Raises InputError."""
        if isinstance(fps, bool) or not isinstance(fps, SupportsFloat) or not 1 <= float(fps) < math.inf:
            raise InputError(f"fps is {fps!r}", "Give the number of frames per second for the networks, at least 1.")
        other = copy.copy(self)
        settings = self.config.predict.model_copy(update={"fps": float(fps)})
        other.config = self.config.model_copy(update={"predict": settings})
        return other

    def offline_reader(self) -> AveragingReader:
        """A reader for one track of features, with the smoothing of each model and the mean over all models.

        It averages overlapping windows of one clip, `clip.hop` frames apart. With `clip.carry`, the head keeps its
        state instead.
        """
        own_networks()
        return self.ensemble.reader(self.config.clip, self.compute)

    def predict_features(self, features: Tensor) -> NDArray[np.float32]:
        """Predicts the values float32 [n, 2] of a subject from its cached features [n, 2048]."""
        return read_track_values(self.offline_reader(), features)

    def predict_frames(self, track: FrameTrack) -> NDArray[np.float32]:
        """Predicts the values float32 [n, 2] of a subject from its raw frames."""
        return predict_frames(
            self.net, track, self.offline_reader(), self.compute, batch=self.config.features.batch
        ).values

    def predict_decoding(self, decoding: Decoding, region: Region) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Predicts the values of an open video. Returns the frame index [n] and the values [n, 2].

        region: where to search for the face, as fractions of the picture.
        """
        reader, index, values = self.offline_reader(), [np.empty(0, np.int64)], []
        for batch in decoding:
            part = np.tile(np.array(region, np.float32), (len(batch), 1))
            outputs = self.encode_pixels(batch.pixels, decoding.facts.width, decoding.facts.height, part)
            values.append(reader.push(outputs.feature))
            index.append(batch.index)
        return np.concatenate(index), np.concatenate([*values, reader.finish()])

    def streaming_reader(self) -> Callable[[Tensor], NDArray[np.float32]]:
        """Returns a function from the feature [1, 2048] of the next frame to its valence and arousal [2].

        It uses only the current and earlier frames, the first model, and no smoothing, because smoothing needs later
        frames. A unidirectional head keeps its state. A bidirectional head reads a window of the last `clip` frames,
        and the output for the last one is used. Memory use is constant.
        """
        own_networks()
        return _StatefulReader(self) if not self.net.head.bidirectional else _SlidingWindowReader(self)

    def environment(self) -> dict[str, Any]:
        """Device, precision and versions that the results depend on, including the decoders."""
        return environment(self.compute, DECODER_PACKAGES)

    def _frames(self, pixels: NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device).permute(0, 3, 1, 2)


class _StatefulReader:
    def __init__(self, predictor: Predictor) -> None:
        self._predictor, self._state = predictor, None

    _state: StreamState | None

    def __call__(self, feature: Tensor) -> NDArray[np.float32]:
        feature = feature[:, :FEATURE_SIZE]
        with torch.no_grad(), self._predictor.compute.autocast():
            output, self._state = self._predictor.net.head.step(feature[None], self._state)
        return output.frame[0, -1].float().cpu().numpy()


class _SlidingWindowReader:
    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._read = head_predictor(predictor.net.head, predictor.compute)
        self._rows: deque[Tensor] = deque(maxlen=predictor.clip)

    def __call__(self, feature: Tensor) -> NDArray[np.float32]:
        self._rows.append(feature[0, :FEATURE_SIZE])
        return self._read(torch.stack(list(self._rows))[None])[0, -1].cpu().numpy()
