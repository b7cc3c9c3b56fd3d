"""End-to-end training: from raw frames through STN, backbone and head, each with its own learning rate."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...configs.schema import Config
from ...models.affect_net import AffectNet
from ...models.losses import affect_loss
from ...models.theta import box_iou
from .augment import change_windows
from .distributed import gather_rows, map_across_ranks
from .frame_tracks import FrameBatch, FrameBatches, FramePrediction, FrameTrack, predict_frames
from .from_cache import Outputs, compute_metrics
from .runtime import Compute
from .windows import draw_windows, track_reader

CALIBRATION_FRAMES = 512
"""Number of training frames that calibrate the standardisation of the head."""


class EndToEnd:
    """The Task of `fit` for frame tracks. calibrate: True for a new head, False for a head of another run.

    The statistics of all batch norms stay as pretrained, because a batch has only a few windows of neighbouring frames.
    STN and backbone process features.batch frames at a time. If a batch of windows has more frames, the activations are
    recomputed for the gradient (checkpointing), so memory does not grow with the clip.
    """

    def __init__(
        self,
        net: AffectNet,
        training: Sequence[FrameTrack],
        validation: Sequence[FrameTrack],
        config: Config,
        compute: Compute,
        *,
        calibrate: bool,
    ) -> None:
        self.model = net.to(compute.device)
        self.train_tracks, self.validation_tracks, self.config = training, validation, config
        self.compute = compute
        self.outputs = Outputs()
        settings = config.train
        uses_stn = all(track.theta is None for track in training)
        self.pretrained_stn = copy.deepcopy(net.stn).eval().requires_grad_(False)
        net.stn.requires_grad_(settings.learning_rate_stn > 0 and uses_stn)
        net.backbone.requires_grad_(settings.learning_rate_backbone > 0)
        net.backbone.network.fc.requires_grad_(False)
        self.has_box_loss = settings.box_weight > 0 and settings.learning_rate_stn > 0 and uses_stn
        rate = settings.learning_rate * (1.0 if calibrate else settings.started_rate)
        self.groups: list[dict[str, Any]] = [
            {"params": [*net.head.parameters()], "lr": rate},
            {
                "params": [*net.backbone.parameters()],
                "lr": settings.learning_rate_backbone,
                "from_epoch": settings.unfreeze_backbone,
            },
            {"params": [*net.stn.parameters()], "lr": settings.learning_rate_stn, "from_epoch": settings.unfreeze_stn},
        ]
        windows = draw_windows([track.valid for track in training], config.clip.length, 0, 0)
        self.steps = -(-len(windows) // settings.batch_end_to_end)
        if calibrate:
            self._calibrate()

    def batches(self, epoch: int) -> FrameBatches:
        config = self.config
        return FrameBatches(
            self.train_tracks, config.clip.length, self.steps, config.runtime.seed, epoch, config.train.balance
        )

    def loss(self, batch: FrameBatch) -> tuple[Tensor, dict[str, Any]]:
        self.model.stn.eval()
        self.model.backbone.eval()
        batch = batch.to(self.compute.device)
        feature, theta = self._encode(batch)
        features = feature.new_zeros(*batch.present.shape, feature.shape[1])
        features[batch.present] = feature
        output = self.model.head(features, batch.present).frame
        output, target, valid = gather_rows(output), gather_rows(batch.target), gather_rows(batch.valid)
        self.outputs.add(output, target, valid)
        settings = self.config.train
        affect = affect_loss(settings.loss, output, target, valid, settings.valence_weight)
        if not (self.has_box_loss and _is_trained(self.model.stn)):
            return affect, {}
        box = self._box_loss(batch, theta)
        return affect + settings.box_weight * box, {"affect_loss": affect, "box_loss": box}

    def validate(self) -> dict[str, float]:
        predicted = map_across_ranks(self.validation_tracks, self._predict_columns, 8, self.compute.device)
        overlaps = []
        for track, values in zip(self.validation_tracks, predicted, strict=True):
            if track.boxes is not None and track.boxed is not None and track.boxed.any():
                pair = (
                    torch.from_numpy(theta[track.boxed]) for theta in (values[:, 2:].reshape(-1, 2, 3), track.boxes)
                )
                overlaps.append(box_iou(*pair))
        figures = compute_metrics([values[:, :2] for values in predicted], self.validation_tracks, self.config)
        return {**figures, "validation_iou": float(torch.cat(overlaps).mean())} if overlaps else figures

    def predict(self, track: FrameTrack) -> FramePrediction:
        """Values and boxes of each frame of a track, not smoothed. The model must be in eval mode."""
        reader = track_reader(self.model.head, self.config.clip, self.compute)
        return predict_frames(self.model, track, reader, self.compute, batch=self.config.features.batch)

    def _predict_columns(self, track: FrameTrack) -> NDArray[np.float32]:
        """float32 [n, 8]: the two values of each frame and the six numbers of theta."""
        predicted = self.predict(track)
        return np.concatenate((predicted.values, predicted.theta.reshape(-1, 6)), 1)

    def _encode(self, batch: FrameBatch) -> tuple[Tensor, Tensor]:
        """(feature [m, 2048], theta [m, 2, 3])."""
        size = self.config.features.batch
        needs_gradient = _is_trained(self.model.stn) or _is_trained(self.model.backbone)
        starts = range(0, len(batch.frames), size)
        encoded = []
        for start in starts:
            rows = slice(start, start + size)
            inputs = (batch.frames[rows], batch.region[rows], None if batch.theta is None else batch.theta[rows])
            change = batch.change[batch.window[rows]]
            if not needs_gradient:
                with torch.no_grad():
                    encoded.append(self._encode_batch(*inputs, change))
            elif len(starts) == 1:
                encoded.append(self._encode_batch(*inputs, change))
            else:
                encoded.append(checkpoint(self._encode_batch, *inputs, change, use_reentrant=False))
        return torch.cat([feature for feature, _ in encoded]), torch.cat([theta for _, theta in encoded])

    def _encode_batch(
        self, frames: Tensor, region: Tensor, theta: Tensor | None, change: Tensor
    ) -> tuple[Tensor, Tensor]:
        if theta is None:
            crop, box, _ = self.model.stn(frames, region)
        else:
            crop, box = self.model.stn.sample(frames, theta), theta
        return self.model.backbone.features(change_windows(crop, change)), box

    def _box_loss(self, batch: FrameBatch, theta: Tensor) -> Tensor:
        """Smooth L1 to the boxes; for subjects without boxes, to the thetas of the pretrained STN."""
        target, unknown = batch.boxes, (~batch.known).nonzero()[:, 0]
        if len(unknown):
            with torch.no_grad():
                pretrained = torch.cat(
                    [
                        self.pretrained_stn.locate(batch.frames[rows], batch.region[rows])[0]
                        for rows in unknown.split(256)
                    ]
                )
            target = target.index_copy(0, unknown, pretrained.to(target.dtype))
        rows = gather_rows(batch.boxed | ~batch.known)
        theta, target = gather_rows(theta), gather_rows(target)
        if not rows.any():
            return theta.sum() * 0.0
        return F.smooth_l1_loss(theta[rows], target[rows], beta=0.05)

    @torch.no_grad()
    def _calibrate(self) -> None:
        """Calibrates the head with the features of frames that are evenly spaced over the training tracks and over
        time."""
        self.model.eval()
        features = []
        per_track = max(1, CALIBRATION_FRAMES // len(self.train_tracks))
        for track in self.train_tracks:
            rows = np.unique(np.linspace(0, len(track) - 1, min(per_track, len(track))).round().astype(np.int64))
            theta = None if track.theta is None else torch.from_numpy(track.theta[rows]).to(self.compute.device)
            region = torch.tensor([track.region], device=self.compute.device).expand(len(rows), 4)
            with self.compute.autocast():
                features.append(
                    self.model.encode(track.frames(rows).to(self.compute.device), region, theta).feature.float()
                )
        joined = torch.cat(features)
        self.model.head.calibrate(joined.mean(0), joined.std(0, correction=0))


def _is_trained(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
