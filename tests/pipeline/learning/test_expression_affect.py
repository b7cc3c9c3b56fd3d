"""Expected valence and arousal of FER+ votes."""

import numpy as np
import pytest
from affect.pipeline.ingest.ferplus import CLASSES
from affect.pipeline.learning.expression_affect import expected_affect


def of(**shares: float) -> tuple[float, float]:
    row = np.array([[shares.get(name, 0.0) for name in CLASSES]])
    valence, arousal = expected_affect(row, CLASSES)[0].tolist()
    return valence, arousal


def test_each_expression_is_on_the_expected_side_of_the_plane() -> None:
    assert of(neutral=1) == (0, 0)
    for name in ("happiness", "surprise"):
        assert min(of(**{name: 1.0})) > 0.3
    for name in ("anger", "disgust", "fear", "contempt"):
        valence, arousal = of(**{name: 1.0})
        assert valence < -0.4
        assert arousal > 0.3
    valence, arousal = of(sadness=1)
    assert valence < -0.4
    assert arousal < 0


def test_divided_votes_are_between_their_classes() -> None:
    assert of(happiness=0.5, neutral=0.5) == pytest.approx((0.405, 0.255))


def test_a_class_without_coordinates_is_refused() -> None:
    with pytest.raises(KeyError):
        expected_affect(np.ones((1, 1)), ("boredom",))
