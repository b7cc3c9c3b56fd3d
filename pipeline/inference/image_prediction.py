"""ImagePrediction: the values of one picture. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class ImagePrediction:
    """Valence and arousal of the face in one picture.

    name: name of the picture. source: its path, or None for an array. width, height: in pixels, upright. face:
    probability of a face. seen: whether `face` reaches `predict.face_threshold`. valence, arousal: in [-1, 1], or NaN
    without a face. box: the face box of the STN, x0 y0 x1 y1 in pixels, or None without a face. emotions: probabilities
    of the expressions, if requested; NaN without a face. interval: low and high end of valence, then of arousal, in
    [-1, 1], or NaN without a face; None if the model has no intervals. distance: from the training data, see
    Trace; NaN without a face, None if the model has no reference.
    """

    name: str
    source: Path | None
    width: int
    height: int
    face: float
    seen: bool
    valence: float
    arousal: float
    box: tuple[float, float, float, float] | None
    emotions: Mapping[str, float] = field(default_factory=dict)
    interval: tuple[tuple[float, float], tuple[float, float]] | None = None
    distance: float | None = None
