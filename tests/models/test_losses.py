"""CCC and the losses, against the textbook."""

import numpy as np
import pytest
import torch
from affect.models.losses import affect_loss, ccc
from affect.pipeline.learning import metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor


def pairs(n: int = 50, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(n, 2, generator=generator) * 2 - 1
    return (0.6 * target + 0.3 * torch.randn(n, 2, generator=generator)).clamp(-1, 1), target


def lin(x: np.ndarray, y: np.ndarray) -> float:
    """Lin's formula computed another way: correlation times bias correction."""
    scale, shift = x.std() / y.std(), (x.mean() - y.mean()) / np.sqrt(x.std() * y.std())
    return float(np.corrcoef(x, y)[0, 1] * 2 / (scale + 1 / scale + shift**2))


def test_ccc_is_lins() -> None:
    a, b = pairs()
    assert ccc(a, b).tolist() == pytest.approx([lin(a[:, k].numpy(), b[:, k].numpy()) for k in (0, 1)], abs=1e-6)
    assert ccc(a, b).dtype == torch.float64


def test_the_loss_and_the_metric_agree() -> None:
    a, b = pairs()
    numbers = metrics.pooled(a.numpy(), b.numpy(), np.ones(50, bool))
    assert ccc(a, b).tolist() == pytest.approx([numbers["ccc_valence"], numbers["ccc_arousal"]], abs=1e-6)


@given(st.integers(0, 1000), st.floats(-0.5, 0.5), st.floats(0.1, 3))
@settings(max_examples=50, deadline=None)
def test_ccc_is_bounded_symmetric_and_1_only_for_the_truth(seed: int, shift: float, scale: float) -> None:
    a, b = pairs(seed=seed)
    assert (ccc(a, b).abs() <= 1).all()
    torch.testing.assert_close(ccc(a, b), ccc(b, a))
    torch.testing.assert_close(ccc(-b, b), -ccc(b, b) * (1 - _offset(b)), atol=1e-9, rtol=0)
    torch.testing.assert_close(ccc(b, b), torch.ones(2, dtype=torch.float64))
    if abs(shift) > 0.01:
        assert (ccc(b * scale + shift, b) < 1).all()


def _offset(b: Tensor) -> Tensor:
    """How far -b is from b in the mean, as Lin's formula weighs it."""
    mean, spread = b.double().mean(0), b.double().var(0, unbiased=False)
    return 1 - 2 * spread / (2 * spread + 4 * mean**2)


@pytest.mark.parametrize("prediction", [0.0, 0.3])
def test_a_constant_scores_0_and_still_has_a_gradient(prediction: float) -> None:
    target = pairs()[1]
    constant = torch.full_like(target, prediction, requires_grad=True)
    assert ccc(constant, target).tolist() == pytest.approx([0, 0], abs=1e-12)
    affect_loss("ccc", constant, target).backward()
    assert constant.grad is not None
    assert constant.grad.isfinite().all()
    assert constant.grad.abs().sum() > 0


def test_two_constants_score_0() -> None:
    same = torch.full((9, 2), 0.7, requires_grad=True)
    assert ccc(same, same.detach()).tolist() == [0, 0]
    affect_loss("ccc+mse", same, same.detach()).backward()
    assert same.grad is not None
    assert same.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["ccc", "mse", "mae", "ccc+mse"])
def test_masked_frames_do_not_count(kind) -> None:
    a, b = (x.view(5, 10, 2).clone() for x in pairs())
    mask = torch.rand(5, 10, generator=torch.Generator().manual_seed(1)) < 0.6
    expected = affect_loss(kind, a[mask], b[mask])
    a[~mask], b[~mask] = float("nan"), -5.0
    a.requires_grad_()
    loss = affect_loss(kind, a, b, mask)
    loss.backward()
    torch.testing.assert_close(loss.detach(), expected)
    assert a.grad is not None
    assert not a.grad[~mask].any()
    assert a.grad[mask].isfinite().all()


@pytest.mark.parametrize("kind", ["ccc", "mse", "mae", "ccc+mse"])
@pytest.mark.parametrize("left", [0, 1])
def test_few_frames_or_none_are_no_trouble(kind, left: int) -> None:
    a, b = pairs(10)
    a.requires_grad_()
    loss = affect_loss(kind, a, b, torch.arange(10) < left)
    loss.backward()
    assert loss.isfinite()
    assert a.grad is not None
    assert a.grad.isfinite().all()
    if not left:
        assert loss == 0


def test_errors_are_those_of_the_columns() -> None:
    a, b = pairs()
    mse = torch.nn.functional.mse_loss
    torch.testing.assert_close(affect_loss("mse", a, b, valence_weight=1.0), mse(a[:, 0], b[:, 0]))
    torch.testing.assert_close(affect_loss("mse", a, b, valence_weight=0.0), mse(a[:, 1], b[:, 1]))
    torch.testing.assert_close(affect_loss("mse", a, b), mse(a, b))
    torch.testing.assert_close(affect_loss("mae", a, b), torch.nn.functional.l1_loss(a, b))
    torch.testing.assert_close(
        affect_loss("ccc+mse", a, b, None, 0.3),
        affect_loss("ccc", a, b, None, 0.3) + affect_loss("mse", a, b, None, 0.3),
    )


def test_half_precision_outputs_are_scored_in_full() -> None:
    a, b = pairs(2000)
    half = a.to(torch.bfloat16)
    assert affect_loss("ccc", half, b).dtype == torch.float32
    torch.testing.assert_close(affect_loss("ccc", half, b), affect_loss("ccc", half.float(), b))


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of ccc, mse, mae"):
        affect_loss("huber", *pairs())  # type: ignore[arg-type]
