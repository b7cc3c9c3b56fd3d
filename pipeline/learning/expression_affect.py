"""Valence and arousal that a distribution over the eight FER+ expressions implies.

The coordinates are the mean pleasure and arousal of emotion terms in Russell and Mehrabian (1977), "Evidence for a
three-factor theory of emotions", Journal of Research in Personality 11, 273-294: terms happy, surprised, sad, angry,
disgusted, fearful. Neutral is the origin. Contempt is not among those terms; we assume the mean of anger and disgust
for it.
"""

import numpy as np
from numpy.typing import NDArray

COORDINATES: dict[str, tuple[float, float]] = {
    "neutral": (0.0, 0.0),
    "happiness": (0.81, 0.51),
    "surprise": (0.40, 0.67),
    "sadness": (-0.63, -0.27),
    "anger": (-0.51, 0.59),
    "disgust": (-0.60, 0.35),
    "fear": (-0.64, 0.60),
    "contempt": (-0.555, 0.47),
}
"""Valence and arousal of each expression, in [-1, 1]."""


def expected_affect(distribution: NDArray[np.floating], classes: tuple[str, ...]) -> NDArray[np.float32]:
    """The expected valence and arousal, float32 [n, 2], of distributions [n, classes] whose rows sum to 1.

    Raises KeyError for a class without coordinates.
    """
    plane = np.array([COORDINATES[name] for name in classes], np.float64)
    return (np.asarray(distribution, np.float64) @ plane).astype(np.float32)
