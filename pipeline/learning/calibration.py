"""Intervals of valence and arousal that hold for new people: split conformal prediction over people, not frames.

The frames of one person are not exchangeable, people are. The score of a frame is |y - prediction| / sigma(x). The
half-width of an interval is sigma(x) times a quantile of the scores of K calibration people, in which each person has
the same weight, however many frames they have. With the weight 1 / (K + 1) for each person and for infinity, a frame of
a new person has a score below the quantile with at least that probability (Dunn, Wasserman & Ramdas, 2022; Lee, Barber
& Willett, 2023). With few people, this covers too much. So the quantile is lowered to the smallest one whose mean
coverage of people who are left out in turn is a standard error above the level.

sigma(x) is log-linear in a few covariates of the frame (fit_calibration.py).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import WeightsError
from ..records import DIMENSIONS

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
PREFIX = "calibration."
"""Of the names of the tensors in a model file."""
GRID = 1001
"""Number of stored quantiles of the scores."""
LIMIT = 4.0
"""Standardised covariates are clipped to this, so that an unusual frame does not get an arbitrary width."""
WIDENING = 0.2
"""A frame that is worse than all calibration frames has a wider interval, by this (in the log) for each standard
deviation beyond, of each covariate."""


@dataclass(frozen=True)
class Scale:
    """The local scale: sigma(x) = exp(weight . z + beyond(z)), z the standardised covariates.

    center, spread: float64 [c]. weight: float64 [2, c], for valence and arousal. sign: float64 [c], the direction in
    which a covariate gets worse, or 0. edge: float64 [c], sign * z of the worst calibration frame.
    """

    center: NDArray[np.float64]
    spread: NDArray[np.float64]
    weight: NDArray[np.float64]
    sign: NDArray[np.float64]
    edge: NDArray[np.float64]

    def standardised(self, covariate: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.clip((covariate - self.center) / self.spread, -LIMIT, LIMIT)

    def sigma(self, covariate: NDArray[np.float64]) -> NDArray[np.float64]:
        """covariate: [n, c]. Returns [n, 2]; above 0."""
        return np.exp(self.standardised(covariate) @ self.weight.T + self.beyond(covariate)[:, None])

    def beyond(self, covariate: NDArray[np.float64]) -> NDArray[np.float64]:
        """The widening of frames that are worse than all calibration frames, from which nothing could be learned: [n],
        at least 0."""
        worse = self.sign * (covariate - self.center) / self.spread - self.edge
        return WIDENING * np.clip(worse, 0, LIMIT).sum(1)


@dataclass(frozen=True)
class Calibration:
    """The intervals of one model and one way to run it.

    people: number of calibration people. covariates: names, in the order of the columns. score: float64 [2, GRID], the
    quantiles of the scores for the levels from 0 to 1, where each person has the same weight; inf where there are too
    few people.
    """

    people: int
    covariates: tuple[str, ...]
    scale: Scale
    score: NDArray[np.float64]

    @property
    def highest_level(self) -> float:
        """The highest level with an interval shorter than [-1, 1]."""
        return self.people / (self.people + 1)

    def quantile(self, level: float) -> NDArray[np.float64]:
        """The quantile of the scores of each dimension, float64 [2]: inf above `highest_level`."""
        return self.score[:, min(GRID - 1, int(np.ceil(level * (GRID - 1) - 1e-9)))]

    def half_width(self, covariate: NDArray[np.float64], level: float) -> NDArray[np.float64]:
        """Half the width of the intervals, before they end at -1 and 1: float64 [n, 2]. covariate: [n, c], a row per
        frame. level: in (0, 1)."""
        return self.scale.sigma(covariate) * self.quantile(level)


def to_state(modes: Mapping[str, Calibration]) -> "tuple[dict[str, Tensor], dict[str, Any]]":
    """The tensors and the metadata of a model file. modes: by the way to run the model, such as `offline`."""
    import torch

    state: dict[str, Tensor] = {}
    facts: dict[str, Any] = {"version": VERSION, "modes": {}}
    for mode, it in modes.items():
        arrays = {**vars(it.scale), "score": it.score}
        state |= {f"{PREFIX}{mode}.{name}": torch.from_numpy(array.copy()) for name, array in arrays.items()}
        facts["modes"][mode] = {"people": it.people, "covariates": list(it.covariates)}
    digest = hashlib.sha256(b"".join(state[name].numpy().tobytes() for name in sorted(state)))
    return state, facts | {"digest": digest.hexdigest()}


def from_state(state: "Mapping[str, Tensor]", facts: Mapping[str, Any] | None) -> dict[str, Calibration]:
    """The inverse of `to_state`. Without facts, or with those of another version: empty. Raises WeightsError."""
    if not facts or facts.get("version") != VERSION:
        return {}
    modes: dict[str, Calibration] = {}
    try:
        for mode, own in facts["modes"].items():
            names = ("center", "spread", "weight", "sign", "edge", "score")
            arrays = [state[f"{PREFIX}{mode}.{name}"].double().numpy() for name in names]
            count = len(own["covariates"])
            if [it.shape for it in arrays] != [
                (count,),
                (count,),
                (len(DIMENSIONS), count),
                (count,),
                (count,),
                (2, GRID),
            ]:
                raise ValueError(f"the tensors of {mode} have wrong shapes")
            *scale, score = arrays
            modes[mode] = Calibration(int(own["people"]), tuple(own["covariates"]), Scale(*scale), score)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(
            f"the calibration of the model is damaged ({error})", "Run `affect evaluate --calibrate` for this run."
        ) from error
    return modes
