"""Training end to end: raw frames through STN, backbone and head, each part with its own learning rate."""

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
from .augment import LUMA, gaussian
from .distributed import gathered, shared_out
from .frame_tracks import MOST_BLUR, FrameBatch, FrameBatches, FrameTrack, predict_frames
from .from_cache import Outputs, judge
from .runtime import autocast
from .windows import draw_windows

CALIBRATED = 512
"""Training frames from which the head's standardisation is taken."""


class EndToEnd:
    """What `fit` asks for, from frame tracks. calibrate: the head is new; else it goes on from another run.

    The statistics of all batch normalisations stay as pretrained: a batch holds a few windows of neighbouring frames,
    which say nothing about the data at large. Frames go through STN and backbone in pieces of features.batch; where a
    batch of windows is more than one piece, each piece's activations are computed again for the gradient, so memory
    does not grow with the clip.
    """

    def __init__(
        self,
        net: AffectNet,
        training: Sequence[FrameTrack],
        validation: Sequence[FrameTrack],
        config: Config,
        device: torch.device,
        dtype: torch.dtype,
        *,
        calibrate: bool,
    ) -> None:
        self.model = net.to(device)
        self.learned, self.judged, self.config = training, validation, config
        self.device, self.dtype = device, dtype
        self.outputs = Outputs()
        settings = config.train
        finds = all(track.theta is None for track in training)
        self.before = copy.deepcopy(net.stn).eval().requires_grad_(False)
        net.stn.requires_grad_(settings.learning_rate_stn > 0 and finds)
        net.backbone.requires_grad_(settings.learning_rate_backbone > 0)
        net.backbone.network.fc.requires_grad_(False)
        self.pulls = settings.box_weight > 0 and settings.learning_rate_stn > 0 and finds
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
            self.learned, config.clip.length, self.steps, config.runtime.seed, epoch, config.train.balance
        )

    def loss(self, batch: FrameBatch) -> tuple[Tensor, dict[str, Any]]:
        self.model.stn.eval()
        self.model.backbone.eval()
        batch = batch.to(self.device)
        feature, theta = self._encode(batch)
        features = feature.new_zeros(*batch.present.shape, feature.shape[1])
        features[batch.present] = feature
        output = self.model.head(features, batch.present).frame
        output, target, valid = gathered(output), gathered(batch.target), gathered(batch.valid)
        self.outputs.add(output, target, valid)
        settings = self.config.train
        affect = affect_loss(settings.loss, output, target, valid, settings.valence_weight)
        if not (self.pulls and _learns(self.model.stn)):
            return affect, {}
        pull = self._pull(batch, theta)
        return affect + settings.box_weight * pull, {"affect_loss": affect, "box_loss": pull}

    def validate(self) -> dict[str, float]:
        seen = shared_out(self.judged, self._watch, 8, self.device)
        overlaps = []
        for track, values in zip(self.judged, seen, strict=True):
            if track.boxes is not None and track.boxed is not None and track.boxed.any():
                pair = (
                    torch.from_numpy(theta[track.boxed]) for theta in (values[:, 2:].reshape(-1, 2, 3), track.boxes)
                )
                overlaps.append(box_iou(*pair))
        figures = judge([values[:, :2] for values in seen], self.judged, self.config)
        return {**figures, "validation_iou": float(torch.cat(overlaps).mean())} if overlaps else figures

    def _watch(self, track: FrameTrack) -> NDArray[np.float32]:
        """float32 [n, 8]: the two values of each frame and the six numbers of theta."""
        clip = self.config.clip
        seen = predict_frames(
            self.model, track, clip.length, clip.hop, carry=clip.carry,
            device=self.device, dtype=self.dtype, batch=self.config.features.batch,
        )  # fmt: skip
        return np.concatenate((seen.values, seen.theta.reshape(-1, 6)), 1)

    def _encode(self, batch: FrameBatch) -> tuple[Tensor, Tensor]:
        """(feature [m, 2048], theta [m, 2, 3])."""
        size = self.config.features.batch
        learns = _learns(self.model.stn) or _learns(self.model.backbone)
        pieces = range(0, len(batch.frames), size)
        found = []
        for start in pieces:
            rows = slice(start, start + size)
            given = (batch.frames[rows], batch.region[rows], None if batch.theta is None else batch.theta[rows])
            change = batch.change[batch.window[rows]]
            if not learns:
                with torch.no_grad():
                    found.append(self._piece(*given, change))
            elif len(pieces) == 1:
                found.append(self._piece(*given, change))
            else:
                found.append(checkpoint(self._piece, *given, change, use_reentrant=False))
        return torch.cat([feature for feature, _ in found]), torch.cat([theta for _, theta in found])

    def _piece(self, frames: Tensor, region: Tensor, theta: Tensor | None, change: Tensor) -> tuple[Tensor, Tensor]:
        if theta is None:
            crop, looked, _ = self.model.stn(frames, region)
        else:
            crop, looked = self.model.stn.sample(frames, theta), theta
        return self.model.backbone.features(_changed(crop, change)), looked

    def _pull(self, batch: FrameBatch, theta: Tensor) -> Tensor:
        """Smooth L1 towards the boxes; for subjects that have none, towards where the STN looked before training."""
        with torch.no_grad():
            before = torch.cat(
                [
                    self.before.locate(batch.frames[rows], batch.region[rows])[0]
                    for rows in (slice(at, at + 256) for at in range(0, len(theta), 256))
                ]
            )
        wanted = torch.where(batch.known[:, None, None], batch.boxes, before)
        rows = gathered(batch.boxed | ~batch.known)
        theta, wanted = gathered(theta), gathered(wanted)
        if not rows.any():
            return theta.sum() * 0.0
        return F.smooth_l1_loss(theta[rows], wanted[rows], beta=0.05)

    @torch.no_grad()
    def _calibrate(self) -> None:
        """Mean and deviation of the features of some frames, drawn evenly over the training tracks and over time."""
        self.model.eval()
        features = []
        each = max(1, CALIBRATED // len(self.learned))
        for track in self.learned:
            rows = np.unique(np.linspace(0, len(track) - 1, min(each, len(track))).round().astype(np.int64))
            theta = None if track.theta is None else torch.from_numpy(track.theta[rows]).to(self.device)
            region = torch.tensor([track.region], device=self.device).expand(len(rows), 4)
            with autocast(self.device, self.dtype):
                features.append(self.model.encode(track.frames(rows).to(self.device), region, theta).feature.float())
        found = torch.cat(features)
        self.model.head.calibrate(found.mean(0), found.std(0, correction=0))


def _learns(part: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in part.parameters())


def _changed(crop: Tensor, change: Tensor) -> Tensor:
    """crop: float [n, 3, c, c] in 0..255. change: [n, 9], see draw_changes. What is erased becomes the crop's mean."""
    flip, gain, lift, grey = (it[:, None, None, None] for it in change[:, :4].unbind(1))
    crop = torch.where(flip > 0, crop.flip(3), crop)
    luma = (crop * crop.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    crop = torch.where(grey > 0, luma.expand_as(crop), crop)
    side, blurred = crop.shape[-1], change[:, 4] > 0
    if blurred.any():
        soft = gaussian(crop[blurred], change[blurred, 4] * side, MOST_BLUR * side)
        crop = crop.index_put((blurred.nonzero()[:, 0],), soft)
    middle = crop.mean((1, 2, 3), keepdim=True)
    crop = (crop - middle) * gain + middle + lift
    steps = (torch.arange(side, device=crop.device) + 0.5) / side
    x0, y0, x1, y1 = change[:, 5:, None].unbind(1)
    hole = ((steps >= y0) & (steps < y1))[:, None, :, None] & ((steps >= x0) & (steps < x1))[:, None, None, :]
    return torch.where(hole, middle + lift, crop).clamp(0, 255)
