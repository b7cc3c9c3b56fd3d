"""What leaves Python is the same network: pixel by pixel, frame by frame, for any batch and any length."""

from pathlib import Path

import numpy as np
import pytest
import torch
from affect.configs.schema import Head
from affect.models.affect_net import AffectNet
from affect.models.backbone import scratch
from affect.models.head import HeadSettings, Readout, TemporalHead
from affect.models.portable import AllLevels, PortableClip, PortableEncoder, PortableStep
from affect.models.pyramid import Pyramid
from affect.models.stn import Kind, SpatialTransformer
from torch import Tensor


def noise(n: int, height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))


def head(*, bidirectional: bool, readout: Readout = "frame", layers: int = 1) -> TemporalHead:
    torch.manual_seed(2)
    settings = Head(project=8, hidden=8, layers=layers, bidirectional=bidirectional, dense=(8,), readout=readout)
    made = TemporalHead(12, HeadSettings(**settings.model_dump())).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


@pytest.mark.parametrize(("height", "width"), [(448, 448), (250, 330), (64, 64)])
@pytest.mark.parametrize("size", [32, 96])
def test_all_levels_give_the_pixels_of_the_fitting_one(height: int, width: int, size: int) -> None:
    theta = torch.stack([torch.eye(2, 3) * scale for scale in (1.1, 1.0, 0.7, 0.5, 0.25, 0.12, 0.05)])
    frames = noise(7, height, width)
    expected = Pyramid(frames).sample(theta, size)
    # Of 255. Where a side is odd, torch's own halving of whole numbers and its steps in floats round unlike.
    near = 1.0 if (height // 2) % 2 else 0.01
    torch.testing.assert_close(AllLevels(frames, 1.1).sample(theta, size), expected, atol=near, rtol=0)
    rows = torch.tensor([6, 0, 3, 3, 1, 2, 5])
    expected = Pyramid(frames).sample(theta, size, rows)
    torch.testing.assert_close(AllLevels(frames, 1.1).sample(theta, size, rows), expected, atol=near, rtol=0)


@pytest.mark.parametrize("candidates", [2, 4])
@pytest.mark.parametrize("kind", ["crop", "similarity", "affine"])
def test_the_portable_encoder_sees_what_the_network_sees(kind: Kind, candidates: int) -> None:
    torch.manual_seed(1)
    stn = SpatialTransformer(kind, 32, 32, 0.2, candidates)
    with torch.no_grad():
        for parameter in stn.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    net = AffectNet(stn, scratch(), head(bidirectional=True)).eval()
    frames = noise(9, 128, 128)
    with torch.no_grad():
        feature, theta, presence = PortableEncoder(net, finds=True).eval()(frames)
        seen = net.encode(frames)
        torch.testing.assert_close(theta, seen.theta, atol=0, rtol=0)
        torch.testing.assert_close(presence, seen.presence, atol=0, rtol=0)
        torch.testing.assert_close(feature, seen.feature)
        feature, _, presence = PortableEncoder(net, finds=False).eval()(frames)
        torch.testing.assert_close(feature, net.encode(frames, theta=stn.whole(9)).feature)
        assert (presence == 1).all()


def run(path: Path, *inputs: np.ndarray) -> list[np.ndarray]:
    from affect.pipeline.runs.portable_file import OnnxModel

    return OnnxModel(path)(*inputs)


@pytest.mark.parametrize(
    ("bidirectional", "readout", "layers"), [(True, "frame", 1), (True, "clip", 2), (False, "frame", 2)]
)
def test_an_onnx_clip_may_have_any_length(bidirectional: bool, readout: Readout, layers: int, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from affect.pipeline.runs.portable_file import write_onnx

    net = head(bidirectional=bidirectional, readout=readout, layers=layers)
    module = PortableClip(net, time_varies=True)
    axes = ({0: "batch", 1: "time"},)
    write_onnx(tmp_path / "head.onnx", module, (torch.zeros(2, 9, 12),), axes, ("features",), ("frame", "clip"))
    for batch, length in ((1, 1), (2, 9), (3, 40)):
        features = torch.rand(batch, length, 12)
        with torch.no_grad():
            expected = net(features)
        for own, other in zip(expected, run(tmp_path / "head.onnx", features.numpy()), strict=True):
            np.testing.assert_allclose(own.numpy(), other, atol=1e-5)


@pytest.mark.parametrize("readout", ["frame", "clip"])
def test_an_onnx_stream_carries_its_state(readout: Readout, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from affect.pipeline.runs.portable_file import Pt2Model, write_onnx, write_pt2

    net = head(bidirectional=False, readout=readout)
    module = PortableStep(net)
    example = (torch.zeros(2, 1, 12), *module.start(2))
    axes = ({0: "batch"}, {1: "batch"}, {1: "batch"}, {0: "batch"}, {})
    names = ("feature", "memory", "cell", "total", "seen")
    write_onnx(
        tmp_path / "head.onnx", module, example, axes, names, ("frame", "clip", *(f"next_{it}" for it in names[1:]))
    )
    write_pt2(tmp_path / "head.pt2", module, example, axes)
    saved = Pt2Model(tmp_path / "head.pt2")
    features, state = torch.rand(3, 7, 12), None
    theirs = [[it.numpy() for it in module.start(3)] for _ in range(2)]
    for time in range(7):
        with torch.no_grad():
            expected, state = net.step(features[:, time : time + 1], state)
        row = features[:, time : time + 1].numpy()
        for number, one in enumerate((saved, lambda *given: run(tmp_path / "head.onnx", *given))):
            frame, clip, *theirs[number] = one(row, *theirs[number])
            np.testing.assert_allclose(frame, expected.frame.numpy(), atol=1e-5)
            np.testing.assert_allclose(clip, expected.clip.numpy(), atol=1e-5)
