"""Weights stored as 8-bit integers."""

from pathlib import Path

import torch
from affect.pipeline.storage.checkpoint import load_weights, save_weights


def test_int8_weights_are_close_and_a_quarter_of_the_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    scales = torch.logspace(-3, 1, 64).view(64, 1, 1, 1)
    state = {"conv": torch.randn(64, 64, 3, 3) * scales, "bias": torch.randn(64), "count": torch.tensor(3)}
    save_weights(tmp_path / "full", state, {})
    save_weights(tmp_path / "small", state, {}, int8=True)
    read, _ = load_weights(tmp_path / "small")
    assert (tmp_path / "small").stat().st_size < 0.27 * (tmp_path / "full").stat().st_size
    assert set(read) == set(state)
    largest = state["conv"].abs().amax((1, 2, 3), keepdim=True)
    assert ((read["conv"] - state["conv"]).abs() <= largest / 250).all()
    assert read["conv"].dtype == torch.float32
    assert torch.equal(read["bias"], state["bias"])
    assert torch.equal(read["count"], state["count"])


def test_a_channel_of_zeros_stays_zero(tmp_path: Path) -> None:
    state = {"conv": torch.zeros(16, 1024)}
    save_weights(tmp_path / "w", state, {}, int8=True)
    assert torch.equal(load_weights(tmp_path / "w")[0]["conv"], state["conv"])
