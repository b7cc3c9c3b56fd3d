"""The temporal head: masks, streams, bounds, and that it learns from features as they come out of a backbone."""

from typing import Any

import pytest
import torch
from affect.configs.schema import Head
from affect.models.head import HeadSettings, TemporalHead
from affect.models.losses import affect_loss, ccc
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

READOUTS = ("frame", "clip")


def small(**more: object) -> TemporalHead:
    torch.manual_seed(0)
    return head_of(12, **{"project": 8, "hidden": 6, "dense": (5,), "dropout": 0.3, **more}).eval()


def head_of(features: int, **settings: Any) -> TemporalHead:
    """A head with the defaults of the config."""
    return TemporalHead(features, HeadSettings(**{**Head().model_dump(), **settings}))


def clips(b: int = 3, t: int = 10, features: int = 12, seed: int = 0) -> Tensor:
    return torch.rand(b, t, features, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize(
    "shape", [{}, {"project": 0}, {"dense": ()}, {"layers": 2}, {"bidirectional": False}, {"kind": "tcn"}]
)
def test_shapes_and_bounds(readout: str, shape: dict) -> None:
    out = small(readout=readout, **shape)(100 * clips())
    assert (out.frame.shape, out.clip.shape) == ((3, 10, 2), (3, 2))
    assert (out.frame.abs() <= 1).all()
    assert (out.clip.abs() <= 1).all()
    torch.testing.assert_close(out.clip, out.frame.mean(1))


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize(
    "shape",
    [{}, {"layers": 2}, {"bidirectional": False}, {"kind": "tcn"}, {"kind": "tcn", "bidirectional": False}],
)
def test_padding_changes_nothing(readout: str, shape: dict) -> None:
    """A clip gives the same alone and beside longer ones, whatever lies in its padding."""
    head = small(readout=readout, **shape)
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
@pytest.mark.parametrize("shape", [{}, {"layers": 2}, {"kind": "tcn", "blocks": 3}, {"kind": "tcn", "project": 0}])
def test_a_stream_is_its_clip(readout: str, shape: dict) -> None:
    head = small(bidirectional=False, readout=readout, **shape)
    x, state, frames = clips(), None, []
    for t in range(10):
        out, state = head.step(x[:, t : t + 1], state)
        frames.append(out.frame)
        torch.testing.assert_close(out.clip, head(x[:, : t + 1]).clip)
        if readout == "clip":
            torch.testing.assert_close(out.frame[:, 0], out.clip)
    if readout == "frame":
        torch.testing.assert_close(torch.cat(frames, 1), head(x).frame)


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("kind", ["lstm", "tcn"])
@given(cuts=st.lists(st.integers(1, 9), min_size=1, max_size=6), more=st.integers(0, 30))
@settings(max_examples=15, deadline=None)
def test_a_stream_may_come_in_pieces_of_any_size(kind: str, readout: str, cuts: list[int], more: int) -> None:
    head = small(bidirectional=False, readout=readout, kind=kind, blocks=2)
    x, state, frames, clip = clips(b=1, t=sum(cuts) + 5 * more), None, [], None
    for piece in x.split([*cuts, *[5] * more], 1):
        out, state = head.step(piece, state)
        frames.append(out.frame)
        clip = out.clip
    torch.testing.assert_close(clip, head(x).clip)
    if readout == "frame":
        torch.testing.assert_close(torch.cat(frames, 1), head(x).frame)
    assert state is not None
    assert sum(it.numel() for it in state.memory) <= 2 * (2 + 4) * (8 + 6)


@pytest.mark.parametrize("kind", ["lstm", "tcn"])
def test_a_causal_head_does_not_look_ahead(kind: str) -> None:
    head, x, y = small(bidirectional=False, kind=kind), clips(), clips(seed=1)
    y[:, :6] = x[:, :6]
    torch.testing.assert_close(head(x).frame[:, :6], head(y).frame[:, :6])
    assert not torch.allclose(small(kind=kind)(x).frame[:, :6], small(kind=kind)(y).frame[:, :6])


def test_convolutions_have_the_documented_receptive_field() -> None:
    """4 x (2 ** blocks - 1) frames back, and no further."""
    head, x = small(bidirectional=False, kind="tcn", blocks=2), clips(b=1, t=40)
    y = x.clone()
    y[:, 5] = 1 - x[:, 5].flip(1)
    moved = (head(x).frame != head(y).frame).any(2)[0].nonzero().flatten()
    assert (moved.min(), moved.max()) == (5, 5 + 12)


@pytest.mark.parametrize("kind", ["lstm", "tcn"])
@pytest.mark.parametrize("length", [16, 32, 300])
def test_clips_of_every_length_give_a_gradient(kind: str, length: int) -> None:
    head = small(kind=kind)
    head(clips(t=length)).frame.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def test_streams_need_a_causal_head() -> None:
    with pytest.raises(ValueError, match="bidirectional"):
        small().step(clips(t=1))


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="expected lstm or tcn"):
        small(kind="gru")


def test_an_unknown_readout_is_refused() -> None:
    with pytest.raises(ValueError, match="expected frame or clip"):
        small(readout="both")


def test_it_starts_near_zero_and_remembers() -> None:
    head = head_of(2048, bidirectional=False).eval()
    assert head(torch.rand(4, 32, 2048)).frame.abs().max() < 0.3
    weights = head.state_dict()
    bias = weights["lstm.bias_ih_l0"] + weights["lstm.bias_hh_l0"]
    assert (bias.chunk(4)[1] == 1).all()


def test_calibration_is_saved_with_the_weights() -> None:
    head = small()
    head.calibrate(torch.arange(12.0), torch.arange(12.0))  # the first feature never moves
    again = small()
    again.load_state_dict(head.state_dict())
    x = clips()
    torch.testing.assert_close(again(x).frame, head(x).frame)
    assert head(x).frame.isfinite().all()


@pytest.mark.parametrize(("kind", "calibrated"), [("lstm", True), ("lstm", False), ("tcn", True)])
def test_the_head_learns_from_features_of_a_backbone(kind: Any, calibrated: bool) -> None:
    """Features of at least 0 whose means are far above what moves in them, the signal in a few directions."""
    generator = torch.Generator().manual_seed(0)
    drift = torch.randn(48, 32, 2, generator=generator).cumsum(1)
    target = (drift / drift.abs().amax((0, 1)) * 2).clamp(-1, 1)
    means = torch.rand(2048, generator=generator) * 2
    directions = torch.randn(2, 2048, generator=generator) * 0.15
    noise = 0.3 * torch.randn(48, 32, 2048, generator=generator)
    features = (means + target @ directions + noise).clamp(min=0)
    torch.manual_seed(0)
    head = head_of(2048, project=64, hidden=32, dense=(32,), kind=kind)
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
