"""The network as a whole: both roads through it give the same."""

import pytest
import torch
from affect.configs.schema import Head
from affect.models.affect_net import AffectNet
from affect.models.backbone import scratch
from affect.models.head import HeadSettings, TemporalHead
from affect.models.stn import SpatialTransformer
from torch import Tensor


@pytest.fixture(scope="module")
def net() -> AffectNet:
    torch.manual_seed(0)
    stn = SpatialTransformer("crop", 32, 48, 0.1)
    with torch.no_grad():
        for parameter in stn.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return AffectNet(
        stn, scratch(), TemporalHead(2048, HeadSettings(**Head(project=16, hidden=8, dense=(8,)).model_dump()))
    ).eval()


def frames(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (*shape, 3, 64, 64), dtype=torch.uint8, generator=generator)


def test_from_frames_and_from_the_cache_are_the_same(net: AffectNet) -> None:
    clips = frames(2, 5)
    region = torch.tensor([[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]])
    with torch.inference_mode():
        encoding = net.encode(clips.flatten(0, 1), region.repeat_interleave(5, 0))
        out = net.head(encoding.feature.view(2, 5, -1))
        cached = torch.stack([net.encode(clip, r.expand(5, 4)).feature for clip, r in zip(clips, region, strict=True)])
        torch.testing.assert_close(out.frame, net.head(cached).frame, atol=1e-5, rtol=1e-4)
        half = net.head(cached.half())
        torch.testing.assert_close(out.frame, half.frame, atol=2e-3, rtol=0)
    assert encoding.feature.shape == (10, 2048)
    assert encoding.theta.shape == (10, 2, 3)
    assert encoding.logits.shape == (10, 8)
    assert ((encoding.presence >= 0) & (encoding.presence <= 1)).all()


def test_known_boxes_replace_the_localiser(net: AffectNet) -> None:
    theta = torch.tensor([[[0.3, 0.0, 0.1], [0.0, 0.4, -0.2]]]).repeat(4, 1, 1)
    with torch.inference_mode():
        encoding = net.encode(frames(4), theta=theta)
        expected = net.backbone.features(net.stn.sample(frames(4), theta))
    torch.testing.assert_close(encoding.feature, expected)
    assert (encoding.presence == 1).all()
    assert torch.equal(encoding.theta, theta)


def test_the_loss_reaches_every_part(net: AffectNet) -> None:
    encoding = net.encode(frames(3))
    out = net.head(encoding.feature[None])
    (out.frame.square().sum() + encoding.presence.sum() + encoding.logits.square().sum()).backward()
    without = [name for name, parameter in net.named_parameters() if parameter.grad is None]
    net.zero_grad(set_to_none=True)
    assert not without
