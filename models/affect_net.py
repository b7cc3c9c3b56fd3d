"""AffectNet: STN, backbone and head in one; the same for training end to end, for caching and for prediction."""

import math
from typing import NamedTuple

from torch import Tensor, nn

from .backbone import Backbone
from .head import HeadOutput, TemporalHead
from .stn import Look, SpatialTransformer


class Encoding(NamedTuple):
    """What is cached of a frame. feature: float [n, 2048]. theta: [n, 2, 3], the box it saw. presence: [n], probability
    of a face. logits: [n, classes] of the backbone's own classes."""

    feature: Tensor
    theta: Tensor
    presence: Tensor
    logits: Tensor


class AffectNet(nn.Module):
    """From frames to valence and arousal. `encode` is the part that is cached, `head` the part that reads the cache."""

    def __init__(self, stn: SpatialTransformer, backbone: Backbone, head: TemporalHead) -> None:
        super().__init__()
        self.stn, self.backbone, self.head = stn, backbone, head

    def encode(self, frames: Tensor, region: Tensor | None = None, theta: Tensor | None = None) -> Encoding:
        """frames: uint8 or float [n, 3, H, W], RGB in 0..255. region: [n, 4], see SpatialTransformer.forward.
        theta: [n, 2, 3], boxes known from elsewhere; then the STN only crops, and presence is 1."""
        if theta is None:
            look = self.stn(frames, region)
        else:
            look = Look(self.stn.sample(frames, theta), theta, theta.new_full((len(theta),), math.inf))
        feature, logits = self.backbone(look.crop)
        return Encoding(feature, look.theta, look.presence.sigmoid(), logits)

    def forward(
        self,
        frames: Tensor,
        region: Tensor | None = None,
        mask: Tensor | None = None,
        theta: Tensor | None = None,
    ) -> tuple[HeadOutput, Encoding]:
        """frames: [b, t, 3, H, W]. region: [b, 4]. mask: bool [b, t], False where padded. theta: [b, t, 2, 3].
        The Encoding's rows are the b * t frames, clip by clip."""
        b, t = frames.shape[:2]
        regions = None if region is None else region.repeat_interleave(t, 0)
        boxes = None if theta is None else theta.flatten(0, 1)
        encoding = self.encode(frames.flatten(0, 1), regions, boxes)
        return self.head(encoding.feature.view(b, t, -1), mask), encoding
