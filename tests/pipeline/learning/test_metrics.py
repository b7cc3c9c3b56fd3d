"""The figures agree with SciPy and NumPy, and behave at the edges."""

import numpy as np
import pytest
from affect.pipeline.learning.metrics import ccc, pearson, pooled
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats


def series(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (n, 2))
    return x, np.clip(0.6 * x + rng.normal(0, 0.2, (n, 2)), -1, 1)


@given(n=st.integers(3, 300), seed=st.integers(0, 10_000))
def test_each_figure_equals_its_oracle(n: int, seed: int) -> None:
    prediction, target = series(n, seed)
    figures = pooled(prediction, target, np.ones(n, bool))
    for column, name in enumerate(("valence", "arousal")):
        x, y = prediction[:, column], target[:, column]
        assert figures[f"pcc_{name}"] == pytest.approx(stats.pearsonr(x, y)[0])
        covariance = np.cov(x, y, bias=True)
        lin = 2 * covariance[0, 1] / (covariance[0, 0] + covariance[1, 1] + (x.mean() - y.mean()) ** 2)
        assert figures[f"ccc_{name}"] == pytest.approx(lin)
        assert (
            figures[f"rmse_{name}"] ** 2
            == pytest.approx(figures[f"mse_{name}"])
            == pytest.approx(((x - y) ** 2).mean())
        )
        assert figures[f"mae_{name}"] == pytest.approx(np.abs(x - y).mean())
        assert figures[f"sign_{name}"] == pytest.approx(((x > 0) == (y > 0)).mean())
    assert figures["ccc_mean"] == pytest.approx((figures["ccc_valence"] + figures["ccc_arousal"]) / 2)


@given(n=st.integers(4, 200), seed=st.integers(0, 10_000))
def test_frames_that_are_not_valid_do_not_count(n: int, seed: int) -> None:
    prediction, target = series(n, seed)
    valid = np.random.default_rng(seed).random(n) < 0.5
    valid[:2] = True
    spoilt = np.where(valid[:, None], prediction, 1e6)
    assert pooled(spoilt, target, valid) == pooled(prediction[valid], target[valid], np.ones(valid.sum(), bool))
    assert pooled(spoilt, target, valid)["frames"] == valid.sum()


def test_a_perfect_prediction_scores_one_and_its_opposite_minus_one() -> None:
    x = np.linspace(-1, 1, 50)
    assert ccc(x, x) == pytest.approx(1) == pytest.approx(pearson(x, 3 * x + 1))
    assert ccc(x, -x) == pytest.approx(-1)


def test_ccc_punishes_an_offset_that_pearson_does_not_see() -> None:
    x = np.linspace(-0.5, 0.5, 50)
    assert pearson(x, x + 0.4) == pytest.approx(1)
    assert ccc(x, x + 0.4) < 0.6


@pytest.mark.parametrize("constant", [0.0, 0.3, 1 / 3])
def test_a_constant_series_scores_zero_and_not_nan(constant: float) -> None:
    y = np.random.default_rng(0).uniform(-1, 1, 1000)
    assert ccc(np.full(1000, constant), y) == 0 == pearson(y, np.full(1000, constant))


def test_float32_values_far_from_zero_keep_their_digits() -> None:
    x = (np.random.default_rng(0).normal(0, 1e-3, (10000, 2)) + 1).astype(np.float32)
    figures = pooled(x, x, np.ones(10000, bool))
    assert figures["ccc_valence"] == pytest.approx(1, abs=1e-12)


def test_no_valid_frame_is_an_error() -> None:
    with pytest.raises(ValueError, match="no frame is valid"):
        pooled(np.zeros((3, 2)), np.zeros((3, 2)), np.zeros(3, bool))
