"""How far faces lie from those of the training split, from the features of the backbone.

The distance uses the mean and deviation of the channels of the first stage (`texture`): a backbone that was trained on
drawings maps real faces to the same final features, but the first stage still sees the difference (Lee et al., NeurIPS
2018, use all stages). Each block is divided by its norm (Sun et al., ICML 2022). The distance is the log of what the
main directions of the training faces do not explain: the residual outside a principal subspace (Wang et al., ViM, CVPR
2022). A reference may also have directions from the training faces to pictures that are known to be unlike them, such
as masks and drawings (Hendrycks et al., Outlier Exposure, ICLR 2019). They use the final features too.
The score of a video is the median distance of its frames with a face. It is compared with the scores of people whose
frames were not used for the fit.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
PREFIX = "reference."
"""Of the names of the tensors in a model file."""
TEXTURE = 512
"""Numbers that describe the texture: two for each channel of the first stage of a ResNet-50."""
CONTRAST = ("direction", "slope", "bias")
DIRECTIONS = 64
"""Dimensions of the principal subspace."""
FOLDS = 5
MIN_PEOPLE = 10
"""With fewer training people, there is no reference."""
MIN_VALIDATION = 5
"""With fewer validation people, their scores do not count."""
FEWEST_FRAMES, MOST_FRAMES = 8, 40
"""Of each person."""
MAX_FRAMES = 2_000
"""Frames of all people, unless there would be fewer than FEWEST_FRAMES of each."""
GRID = 1001
"""The scores of more people are stored as this many quantiles."""
TAIL = 0.99
SMALLEST = 1e-6


@dataclass(frozen=True)
class Unlike:
    """How far the faces of a video lie from those of the training split.

    distance: median over the frames with a face; 0 is the median of held-out people, 1 their 99th percentile (of
    up to 100 people, the second farthest).
    percentile: share of the held-out people that lie nearer, in percent. beyond: whether the distance is above the
    limit, so that the values cannot be relied on.
    """

    distance: float
    percentile: float
    beyond: bool

    def facts(self) -> dict[str, Any]:
        """For the facts of a video."""
        return {
            "training_distance": round(self.distance, 4),
            "training_percentile": round(self.percentile, 2),
            "beyond_training": self.beyond,
        }


@dataclass(frozen=True, eq=False)
class Subspace:
    """Of the texture. mean: float32 [t]. basis: float32 [k, t], the main directions, orthonormal."""

    mean: "Tensor"
    basis: "Tensor"

    def residual(self, description: "Tensor") -> "Tensor":
        """Log of the squared length of the texture outside the subspace, [n]. description: [n, t + f]."""
        centred = description[:, :TEXTURE].float() - self.mean
        inside = (centred @ self.basis.T).square().sum(1)
        return (centred.square().sum(1) - inside).clamp(min=SMALLEST).log()


@dataclass(frozen=True, eq=False)
class Contrast:
    """Classifies faces as training faces or one of c other kinds. direction: float32 [c, t + f], of descriptions.
    slope: [c], of the residual. bias: [c]. Its output is the log-odds of each kind against training faces."""

    direction: "Tensor"
    slope: "Tensor"
    bias: "Tensor"


@dataclass(frozen=True, eq=False)
class Reference:
    """The training faces of a model. score: float64 [p], sorted scores of held-out people, or quantiles of them.
    people: number of held-out people."""

    subspace: Subspace
    contrast: Contrast | None
    score: NDArray[np.float64]
    people: int

    def raw(self, description: "Tensor") -> "Tensor":
        """The distance [n] before it is standardised. description: [n, t + f], see describe."""
        residual = self.subspace.residual(description)
        own = self.contrast
        if own is None:
            return residual
        odds = description.float() @ own.direction.T + residual[:, None] * own.slope + own.bias
        return odds.logsumexp(1)

    def distance(self, description: "Tensor") -> "Tensor":
        """Distance of each frame, float32 [n]. 0: the median score of held-out people. 1: their 99th percentile, or the
        second farthest of up to 100 people.

        description: [n, t + f], see describe, by the encoder of this model.
        """
        centre, width = self._range
        return (self.raw(description) - centre) / width

    @property
    def limit(self) -> float:
        """Videos with a larger distance are beyond the training data: 1 and a margin, larger with few people."""
        return 1 + 1 / math.sqrt(self.people)

    def judge(self, distance: NDArray[np.floating[Any]], seen: NDArray[np.bool_]) -> Unlike | None:
        """Compares a video with the held-out people; None without a face. distance: [n]. seen: bool [n], whether the
        frame shows a face."""
        if not seen.any():
            return None
        middle = float(np.median(distance[seen]))
        centre, width = self._range
        nearer = np.searchsorted(self.score, middle * width + centre, side="right") / len(self.score)
        return Unlike(middle, 100 * float(nearer), middle > self.limit)

    def to(self, device: Any) -> "Reference":
        """The same reference on a device."""
        subspace = Subspace(self.subspace.mean.to(device), self.subspace.basis.to(device))
        own = self.contrast
        contrast = None if own is None else Contrast(*(it.to(device) for it in (own.direction, own.slope, own.bias)))
        return Reference(subspace, contrast, self.score, self.people)

    @property
    def _range(self) -> tuple[float, float]:
        middle, tail = np.quantile(self.score, [0.5, TAIL])
        tail = min(tail, self.score[-2:][0])  # a single far person does not set the limit
        return float(middle), float(max(tail - middle, SMALLEST))


def describe(texture: "Tensor", feature: "Tensor") -> "Tensor":
    """What a reference needs of frames: texture [n, t] and features [n, f], each divided by its norm, side by side,
    [n, t + f]."""
    import torch

    blocks = (texture.float(), feature.float())
    return torch.cat([block / block.norm(dim=1, keepdim=True).clamp(min=SMALLEST) for block in blocks], 1)


def fit_reference(training: "Sequence[Tensor]", validation: "Sequence[Tensor]" = ()) -> Reference | None:
    """The reference of some people; None for fewer than MIN_PEOPLE.

    training: descriptions [n, t + f] of frames with a face, for each person. The score of a person uses a subspace that
    was fitted without this person. validation: of people that the backbone was not trained on. If they lie farther away
    than the training people, all scores are shifted by the difference of the medians.
    """
    import torch

    people = [person for person in training if len(person)]
    if len(people) < MIN_PEOPLE:
        return None
    parts = [people[fold::FOLDS] for fold in range(FOLDS)]
    moments = [_moments(part) for part in parts]
    total = [torch.stack(column).sum(0) for column in zip(*moments, strict=True)]
    scores: list[float] = []
    for part, own in zip(parts, moments, strict=True):
        without = _subspace(*[whole - it for whole, it in zip(total, own, strict=True)])
        scores += person_scores(Reference(without, None, np.zeros(1), 1), part)
    whole = Reference(_subspace(*total), None, np.zeros(1), 1)
    new = person_scores(whole, validation)
    shift = max(0.0, float(np.median(new) - np.median(scores))) if len(new) >= MIN_VALIDATION else 0.0
    return with_scores(whole, np.array(scores) + shift)


def with_scores(reference: Reference, scores: "NDArray[np.float64] | Sequence[float]") -> Reference:
    """The same reference with the scores of held-out people."""
    known = np.sort(np.asarray(scores, np.float64))
    stored = known if len(known) <= GRID else np.quantile(known, np.linspace(0, 1, GRID))
    return Reference(reference.subspace, reference.contrast, stored, len(known))


def person_scores(reference: Reference, people: "Sequence[Tensor]") -> list[float]:
    """The score of each person with at least one frame: the median of `raw`."""
    return [float(reference.raw(person).quantile(0.5)) for person in people if len(person)]


def fit_subspace(people: "Sequence[Tensor]") -> Subspace:
    """The main directions of the texture of all people, each with the same weight. people: descriptions [n, t + f]."""
    return _subspace(*_moments(people))


def to_state(reference: Reference | None) -> "tuple[dict[str, Tensor], dict[str, Any] | None]":
    """The tensors and the metadata of a model file."""
    import torch

    if reference is None:
        return {}, None
    state = {
        "mean": reference.subspace.mean, "basis": reference.subspace.basis, "score": torch.from_numpy(reference.score)
    }  # fmt: skip
    if reference.contrast is not None:
        state |= {name: getattr(reference.contrast, name) for name in CONTRAST}
    return {PREFIX + name: it.cpu() for name, it in state.items()}, {"version": VERSION, "people": reference.people}


def from_state(state: "Mapping[str, Tensor]", facts: Mapping[str, Any] | None) -> Reference | None:
    """The inverse of `to_state`. Without facts, or with those of another version: None. Raises WeightsError."""
    if not facts or facts.get("version") != VERSION:
        return None
    try:
        found = {name.removeprefix(PREFIX): it for name, it in state.items() if name.startswith(PREFIX)}
        subspace = Subspace(found["mean"].float(), found["basis"].float())
        contrast = None
        if "direction" in found:
            contrast = Contrast(*(found[name].float() for name in CONTRAST))
        score = found["score"].double().numpy()
        if subspace.mean.shape != (TEXTURE,) or subspace.basis.shape[1:] != (TEXTURE,) or not np.isfinite(score).all():
            raise ValueError("the tensors have wrong shapes")
        if contrast is not None and len(contrast.direction) != len(contrast.bias):
            raise ValueError("the tensors have wrong shapes")
        return Reference(subspace, contrast, score, int(facts["people"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(f"the reference of the model is damaged ({error})", "Train the model again.") from error


def sample_rows(seen: NDArray[np.bool_], limit: int) -> NDArray[np.int64]:
    """At most `limit` evenly spaced rows of the frames with a face. seen: bool [n]."""
    rows = np.flatnonzero(seen)
    return rows if len(rows) <= limit else rows[np.linspace(0, len(rows) - 1, limit).astype(np.int64)]


def frames_per_person(people: int) -> int:
    """How many frames of each person to use."""
    return max(FEWEST_FRAMES, min(MOST_FRAMES, MAX_FRAMES // max(1, people)))


def _moments(people: "Sequence[Tensor]") -> "tuple[Tensor, Tensor, Tensor]":
    """Of the textures, each person with the same weight, float64: the summed weights, the sum [t], and the sum of the
    outer products [t, t]."""
    import torch

    total, square = torch.zeros(TEXTURE, dtype=torch.float64), torch.zeros(TEXTURE, TEXTURE, dtype=torch.float64)
    for person in people:
        rows = person[:, :TEXTURE].double()
        total += rows.mean(0)
        square += rows.T @ rows / len(rows)
    return torch.tensor(float(len(people)), dtype=torch.float64), total, square


def _subspace(weight: "Tensor", total: "Tensor", square: "Tensor") -> Subspace:
    import torch

    mean = total / weight
    covariance = square / weight - torch.outer(mean, mean)
    basis = torch.linalg.eigh(covariance)[1].flip(1)[:, :DIRECTIONS]
    return Subspace(mean.float(), basis.T.float().contiguous())
