"""Training from cache: the head learns on features that were computed once."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...configs.schema import Config
from ...models.head import TemporalHead
from ...models.losses import affect_loss
from .ahead import ahead
from .distributed import gathered
from .metrics import pooled
from .tracks import Batch, FeatureTracks
from .windows import predict_track


class Outputs:
    """The predictions of an epoch beside their targets; `figures` gives the measures under a prefix."""

    def __init__(self) -> None:
        self._pieces: list[tuple[Tensor, Tensor, Tensor]] = []
        self.frames = 0

    def add(self, output: Tensor, target: Tensor, valid: Tensor) -> None:
        """output, target: [b, t, 2]. valid: bool [b, t]. They stay on their device until they are asked for."""
        self._pieces.append((output.detach().float(), target, valid))
        self.frames += valid.numel()

    def state_dict(self) -> dict[str, Any]:
        """For a state in the middle of an epoch."""
        return {"pieces": self._pieces, "frames": self.frames}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._pieces, self.frames = list(state["pieces"]), state["frames"]

    def figures(self, prefix: str) -> dict[str, float]:
        """The measures over all that was added, which is then forgotten; none where no frame was valid."""
        pieces, self._pieces, self.frames = self._pieces, [], 0
        if not any(bool(valid.any()) for _, _, valid in pieces):
            return {}
        output, target = (torch.cat([piece[i].flatten(0, 1) for piece in pieces]).cpu().numpy() for i in (0, 1))
        valid = torch.cat([valid.flatten() for _, _, valid in pieces]).cpu().numpy()
        return {f"{prefix}{name}": figure for name, figure in pooled(output, target, valid).items()}


class FromCache:
    """What `fit` asks for, from feature tracks.

    calibrate: the head is new, and standardises features by the training set's statistics; else by those it came with.
    """

    def __init__(
        self,
        head: TemporalHead,
        training: FeatureTracks,
        validation: FeatureTracks,
        config: Config,
        device: torch.device,
        dtype: torch.dtype,
        *,
        calibrate: bool,
    ) -> None:
        self.model = head.to(device)
        self.training, self.validation, self.config = training, validation, config
        self.learned, self.judged = training.tracks, validation.tracks
        self.device, self.dtype = device, dtype
        self.outputs = Outputs()
        if calibrate:
            head.calibrate(*training.statistics())
        self.steps = -(-training.count_windows(config.clip.length) // config.train.batch)
        rate = config.train.learning_rate * (1.0 if calibrate else config.train.started_rate)
        self.groups: list[dict[str, Any]] = [{"params": list(head.parameters()), "lr": rate}]

    def batches(self, epoch: int) -> Iterator[Batch]:
        settings = self.config.train
        return self.training.batches(
            self.config.clip.length, self.steps, self.config.runtime.seed, epoch,
            balance=settings.balance, speed=settings.speed,
        )  # fmt: skip

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        settings = self.config.train
        features = batch.features
        if settings.noise:
            features = features + settings.noise * self.model.spread * torch.randn_like(features)
        if settings.time_mask:
            hidden = _hidden(features, settings.time_mask)
            features = torch.where(hidden[..., None], self.model.mean, features)
        output = self.model(features, batch.present).frame
        output, target, valid = gathered(output), gathered(batch.target), gathered(batch.valid)
        self.outputs.add(output, target, valid)
        return affect_loss(settings.loss, output, target, valid, settings.valence_weight), {}

    def validate(self) -> dict[str, float]:
        return judge(self.predict(), self.judged, self.config)

    def predict(self) -> list[NDArray[np.float32]]:
        """Values of each frame of each validation track: float32 [n, 2]. The head has to be in eval mode."""
        return predict_tracks(self.model, self.validation, self.config, self.device, self.dtype)


def predict_tracks(
    head: TemporalHead, tracks: FeatureTracks, config: Config, device: torch.device, dtype: torch.dtype
) -> list[NDArray[np.float32]]:
    """Values of each frame of each track: float32 [n, 2]. The head has to be in eval mode."""
    clip = config.clip
    features = ahead(range(len(tracks.tracks)), tracks.features, depth=1)
    return [
        predict_track(head, track, clip.length, clip.hop, carry=clip.carry, device=device, dtype=dtype)
        for track in features
    ]


def judge(predictions: list[NDArray[np.float32]], tracks: Any, config: Config) -> dict[str, float]:
    """validation_loss and the other measures over all valid frames of the tracks, which have `target` and `valid`."""
    values = np.concatenate(predictions)
    target = np.concatenate([track.target for track in tracks])
    valid = np.concatenate([track.valid for track in tracks])
    loss = affect_loss(
        config.train.loss, *(torch.from_numpy(array[valid]) for array in (values, target)),
        valence_weight=config.train.valence_weight,
    )  # fmt: skip
    figures = pooled(values, target, valid)
    return {"validation_loss": float(loss), **{f"validation_{name}": figure for name, figure in figures.items()}}


def _hidden(features: Tensor, share: float) -> Tensor:
    """bool [b, t], one random span of each window, of up to that share of its frames."""
    b, t = features.shape[:2]
    span = (torch.rand(b, 1, device=features.device) * (share * t + 1)).floor()
    start = (torch.rand(b, 1, device=features.device) * (t - span + 1)).floor()
    place = torch.arange(t, device=features.device)
    return (place >= start) & (place < start + span)
