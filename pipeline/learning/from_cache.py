"""Training from cache: trains the head on cached features."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...configs.schema import Clip, Config
from ...models.head import TemporalHead
from ...models.losses import affect_loss
from .distributed import gather_rows
from .metrics import pooled
from .prefetch import prefetch
from .runtime import Compute
from .tracks import Batch, FeatureTracks
from .windows import predict_track


class Outputs:
    """The predictions of an epoch and their targets. `figures` returns the metrics, with a prefix."""

    def __init__(self) -> None:
        self._pieces: list[tuple[Tensor, Tensor, Tensor]] = []
        self.frames = 0

    def add(self, output: Tensor, target: Tensor, valid: Tensor) -> None:
        """output, target: [b, t, 2]. valid: bool [b, t]. They stay on their device until `figures`."""
        self._pieces.append((output.detach().float(), target, valid))
        self.frames += valid.numel()

    def state_dict(self) -> dict[str, Any]:
        """For a state file within an epoch."""
        return {"pieces": self._pieces, "frames": self.frames}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._pieces, self.frames = list(state["pieces"]), state["frames"]

    def figures(self, prefix: str) -> dict[str, float]:
        """The metrics over all added outputs, which are then removed. Empty if no frame was valid."""
        pieces, self._pieces, self.frames = self._pieces, [], 0
        if not any(bool(valid.any()) for _, _, valid in pieces):
            return {}
        output, target = (torch.cat([piece[i].flatten(0, 1) for piece in pieces]).cpu().numpy() for i in (0, 1))
        valid = torch.cat([valid.flatten() for _, _, valid in pieces]).cpu().numpy()
        return {f"{prefix}{name}": figure for name, figure in pooled(output, target, valid).items()}


class FromCache:
    """The Task of `fit` for feature tracks.

    calibrate: True for a new head, which then standardises features with the statistics of the training set. False
    keeps the statistics of the head.
    """

    def __init__(
        self,
        head: TemporalHead,
        training: FeatureTracks,
        validation: FeatureTracks,
        config: Config,
        compute: Compute,
        *,
        calibrate: bool,
    ) -> None:
        self.model = head.to(compute.device)
        self.training, self.validation, self.config = training, validation, config
        self.train_tracks, self.validation_tracks = training.tracks, validation.tracks
        self.compute = compute
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
            masked = _draw_time_mask(features, settings.time_mask)
            features = torch.where(masked[..., None], self.model.mean, features)
        output = self.model(features, batch.present).frame
        output, target, valid = gather_rows(output), gather_rows(batch.target), gather_rows(batch.valid)
        self.outputs.add(output, target, valid)
        return affect_loss(settings.loss, output, target, valid, settings.valence_weight), {}

    def validate(self) -> dict[str, float]:
        return compute_metrics(self.predict(), self.validation_tracks, self.config)

    def predict(self) -> list[NDArray[np.float32]]:
        """Values of each frame of each validation track: float32 [n, 2]. The head must be in eval mode."""
        return predict_tracks(self.model, self.validation, self.config.clip, self.compute)


def predict_tracks(
    head: TemporalHead, tracks: FeatureTracks, clip: Clip, compute: Compute
) -> list[NDArray[np.float32]]:
    """Values of each frame of each track: float32 [n, 2]. The head must be in eval mode."""
    features = prefetch(range(len(tracks.tracks)), tracks.features, depth=1)
    return [predict_track(head, track, clip, compute) for track in features]


def compute_metrics(predictions: list[NDArray[np.float32]], tracks: Any, config: Config) -> dict[str, float]:
    """validation_loss and the other metrics over all valid frames of the tracks, which have `target` and `valid`."""
    values = np.concatenate(predictions)
    target = np.concatenate([track.target for track in tracks])
    valid = np.concatenate([track.valid for track in tracks])
    loss = affect_loss(
        config.train.loss, *(torch.from_numpy(array[valid]) for array in (values, target)),
        valence_weight=config.train.valence_weight,
    )  # fmt: skip
    figures = pooled(values, target, valid)
    return {"validation_loss": float(loss), **{f"validation_{name}": figure for name, figure in figures.items()}}


def _draw_time_mask(features: Tensor, share: float) -> Tensor:
    """bool [b, t]: True in one random span of each window, at most `share` of its frames long."""
    b, t = features.shape[:2]
    span = (torch.rand(b, 1, device=features.device) * (share * t + 1)).floor()
    start = (torch.rand(b, 1, device=features.device) * (t - span + 1)).floor()
    frame = torch.arange(t, device=features.device)
    return (frame >= start) & (frame < start + span)
