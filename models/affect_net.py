"""AffectNet: STN, backbone and head. Training, caching and prediction use the same module."""

import math
from typing import NamedTuple

from torch import Tensor, nn

from .backbone import Backbone
from .head import TemporalHead
from .stn import SpatialTransformer, StnOutput


class Encoding(NamedTuple):
    """The output for n frames. feature: float [n, 2048]. theta: [n, 2, 3], the face box. presence: [n], probability of
    a face. logits: [n, classes] of the backbone's classes. texture: float32 [n, 512], see Backbone.read."""

    feature: Tensor
    theta: Tensor
    presence: Tensor
    logits: Tensor
    texture: Tensor


class AffectNet(nn.Module):
    """From frames to valence and arousal. The output of `encode` can be cached; `head` reads it."""

    def __init__(self, stn: SpatialTransformer, backbone: Backbone, head: TemporalHead) -> None:
        super().__init__()
        self.stn, self.backbone, self.head = stn, backbone, head

    def encode(self, frames: Tensor, region: Tensor | None = None, theta: Tensor | None = None) -> Encoding:
        """frames: uint8 or float [n, 3, H, W], RGB in 0..255. region: [n, 4], see SpatialTransformer.forward.
        theta: [n, 2, 3], known face boxes. With it, the STN only crops, and presence is 1."""
        if theta is None:
            look = self.stn(frames, region)
        else:
            look = StnOutput(self.stn.sample(frames, theta), theta, theta.new_full((len(theta),), math.inf))
        feature, logits, texture = self.backbone.read(look.crop)
        return Encoding(feature, look.theta, look.presence.sigmoid(), logits, texture)
