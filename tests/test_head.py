"""The temporal head: masks, streams, bounds, and that it learns from features as they come out of a backbone."""

import pytest
import torch
from affect.models.head import TemporalHead
from affect.models.losses import affect_loss, ccc
from torch import Tensor

READOUTS = ("frame", "clip")


def small(**settings: object) -> TemporalHead:
    torch.manual_seed(0)
    settings = {"features": 12, "project": 8, "hidden": 6, "dense": (5,), "dropout": 0.3, **settings}
    return TemporalHead(**settings).eval()  # type: ignore[arg-type]


def clips(b: int = 3, t: int = 10, features: int = 12, seed: int = 0) -> Tensor:
    return torch.rand(b, t, features, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("settings", [{}, {"project": 0}, {"dense": ()}, {"layers": 2}, {"bidirectional": False}])
def test_shapes_and_bounds(readout: str, settings: dict) -> None:
    out = small(readout=readout, **settings)(100 * clips())
    assert (out.frame.shape, out.clip.shape) == ((3, 10, 2), (3, 2))
    assert (out.frame.abs() <= 1).all()
    assert (out.clip.abs() <= 1).all()
    torch.testing.assert_close(out.clip, out.frame.mean(1))


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("settings", [{}, {"layers": 2}, {"bidirectional": False}])
def test_padding_changes_nothing(readout: str, settings: dict) -> None:
    """A clip gives the same alone and beside longer ones, whatever lies in its padding."""
    head = small(readout=readout, **settings)
    lengths = (10, 4, 1)
    padded = clips()
    mask = torch.arange(10) < torch.tensor(lengths)[:, None]
    padded[~mask] = 1e3
    together = head(padded, mask)
    for k, length in enumerate(lengths):
        alone = head(padded[k : k + 1, :length])
        torch.testing.assert_close(together.frame[k, :length], alone.frame[0])
        torch.testing.assert_close(together.clip[k], alone.clip[0])


def test_a_clip_of_padding_alone_is_finite() -> None:
    head = small().train()
    out = head(clips(), torch.zeros(3, 10, dtype=torch.bool))
    out.frame.sum().backward()
    assert out.clip.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("layers", [1, 2])
def test_a_stream_is_its_clip(readout: str, layers: int) -> None:
    head = small(bidirectional=False, readout=readout, layers=layers)
    x, state, frames = clips(), None, []
    for t in range(10):
        out, state = head.step(x[:, t : t + 1], state)
        frames.append(out.frame)
        torch.testing.assert_close(out.clip, head(x[:, : t + 1]).clip)
        if readout == "clip":
            torch.testing.assert_close(out.frame[:, 0], out.clip)
    if readout == "frame":
        torch.testing.assert_close(torch.cat(frames, 1), head(x).frame)


def test_a_causal_head_does_not_look_ahead() -> None:
    head, x, y = small(bidirectional=False), clips(), clips(seed=1)
    y[:, :6] = x[:, :6]
    torch.testing.assert_close(head(x).frame[:, :6], head(y).frame[:, :6])
    assert not torch.allclose(small()(x).frame[:, :6], small()(y).frame[:, :6])


def test_streams_need_a_causal_head() -> None:
    with pytest.raises(ValueError, match="bidirectional"):
        small().step(clips(t=1))


def test_an_unknown_readout_is_refused() -> None:
    with pytest.raises(ValueError, match="expected frame or clip"):
        small(readout="both")


def test_it_starts_near_zero_and_remembers() -> None:
    head = TemporalHead(bidirectional=False).eval()
    assert head(torch.rand(4, 32, 2048)).frame.abs().max() < 0.3
    bias = dict(head.lstm.named_parameters())["bias_ih_l0"] + dict(head.lstm.named_parameters())["bias_hh_l0"]
    assert (bias.chunk(4)[1] == 1).all()


def test_calibration_travels_with_the_weights() -> None:
    head = small()
    head.calibrate(torch.arange(12.0), torch.arange(12.0))  # the first feature never moves
    again = small()
    again.load_state_dict(head.state_dict())
    x = clips()
    torch.testing.assert_close(again(x).frame, head(x).frame)
    assert head(x).frame.isfinite().all()


@pytest.mark.parametrize("calibrated", [True, False])
def test_it_learns_from_a_backbones_features(calibrated: bool) -> None:
    """Features of at least 0 whose means are far above what moves in them, the signal in a few directions."""
    generator = torch.Generator().manual_seed(0)
    drift = torch.randn(48, 32, 2, generator=generator).cumsum(1)
    target = (drift / drift.abs().amax((0, 1)) * 2).clamp(-1, 1)
    means = torch.rand(2048, generator=generator) * 2
    directions = torch.randn(2, 2048, generator=generator) * 0.15
    noise = 0.3 * torch.randn(48, 32, 2048, generator=generator)
    features = (means + target @ directions + noise).clamp(min=0)
    torch.manual_seed(0)
    head = TemporalHead(project=64, hidden=32, dense=(32,))
    if calibrated:
        head.calibrate(features.mean((0, 1)), features.std((0, 1)))
    optimizer = torch.optim.AdamW(head.parameters(), 1e-3)
    for _ in range(30):
        for rows in torch.randperm(32, generator=generator).split(8):
            loss = affect_loss("ccc+mse", head(features[rows]).frame, target[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    score = ccc(head.eval()(features[32:]).frame.detach(), target[32:])
    assert (score > 0.8).all(), score
