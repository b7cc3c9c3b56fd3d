"""Fits a Calibration to the residuals of people: the local scale by a Laplace likelihood, and the scores.

The scores of a person use a sigma that was fitted without this person.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .calibration import GRID, Calibration, Scale

FOLDS = 5
MIN_PEOPLE = 6
"""With fewer people, the width is constant."""
MAX_ROWS = 400
"""Frames of a person that sigma is fitted to, at even intervals. The scores are those of all frames."""
PENALTIES = (5.0, 15.0, 45.0)
"""Weights of the ridge penalty to choose from, divided by the number of people."""
POWERS = (0.25, 0.5, 0.75, 1.0)
"""Powers of sigma to choose from: the likelihood follows typical residuals, and the width the large ones."""
LEVEL = 0.9
"""Coverage at which widths are compared for these choices."""
SMALLEST = 1e-6


@dataclass(frozen=True)
class Person:
    """Annotated frames of one calibration person. residual: float64 [n, 2], |annotation - prediction|. covariate:
    float64 [n, c]."""

    residual: NDArray[np.float64]
    covariate: NDArray[np.float64]


def calibrate(
    people: Sequence[Person], covariates: Sequence[str], signs: Sequence[int], *, constant: bool = False
) -> Calibration:
    """Fits the local scale and the scores of at least one person with annotated frames.

    signs: for each covariate 1 if the width may only rise with it, -1 if it may only fall, 0 for both. constant: leave
    the scale constant. Raises ValueError.
    """
    people = [person for person in people if len(person.residual)]
    if not people:
        raise ValueError("there is no annotated frame to calibrate on")
    local = not constant and len(people) >= MIN_PEOPLE and len(covariates) > 0
    scale = _standardisation([_thinned(person) for person in people], np.array(signs, np.float64) * local)
    weights = np.zeros((len(people), *scale.weight.shape))  # the scale for each person, fitted without this person
    whole = scale.weight
    if local:
        whole, weights = _fit_scales([_thinned(person) for person in people], scale, np.array(signs))
    scores = [
        person.residual / replace(scale, weight=weights[k]).sigma(person.covariate) for k, person in enumerate(people)
    ]
    fitted = replace(scale, weight=whole)
    return Calibration(len(people), tuple(covariates), fitted, _quantiles(scores))


def _thinned(person: Person) -> Person:
    if len(person.residual) <= MAX_ROWS:
        return person
    rows = np.linspace(0, len(person.residual) - 1, MAX_ROWS).astype(int)
    return Person(person.residual[rows], person.covariate[rows])


def _standardisation(people: Sequence[Person], sign: NDArray[np.float64]) -> Scale:
    """Mean and deviation of each covariate, where each person has the same weight; without weights."""
    means = np.stack([person.covariate.mean(0) for person in people])
    squares = np.stack([np.square(person.covariate).mean(0) for person in people])
    center = means.mean(0)
    spread = np.sqrt((squares.mean(0) - center**2).clip(min=0))
    # A covariate that hardly varies says nothing. Its weight stays 0.
    spread = np.where(spread > 1e-6, spread, 1.0)
    edge = np.max([(sign * (person.covariate - center) / spread).max(0) for person in people], 0)
    return Scale(center, spread, np.zeros((2, len(center))), sign, edge)


def _fit_scales(
    people: Sequence[Person], scale: Scale, signs: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The weights [2, c] for new people, and for each person those that were fitted without this person, [k, 2, c].

    Of all penalties and powers, those with the smallest mean width are chosen.
    """
    rows = [scale.standardised(person.covariate) for person in people]
    beyond = [scale.beyond(person.covariate) for person in people]
    folds = np.arange(len(people)) % min(FOLDS, len(people))
    order = np.random.default_rng(0).permutation(len(people))
    whole = np.zeros_like(scale.weight)
    without = np.zeros((len(people), *scale.weight.shape))
    for dimension in range(2):
        wide = [np.maximum(person.residual[:, dimension], SMALLEST) for person in people]
        residuals = [own * np.exp(-more) for own, more in zip(wide, beyond, strict=True)]
        best = _mean_width(wide, beyond)
        for penalty in PENALTIES:
            found = np.zeros((len(people), len(signs)))
            for fold in range(folds.max() + 1):
                rest = order[folds != fold]
                found[order[folds == fold]] = _fit(
                    [rows[k] for k in rest], [residuals[k] for k in rest], signs, penalty
                )
            for power in POWERS:
                sigma = [power * row @ own + more for row, own, more in zip(rows, found, beyond, strict=True)]
                width = _mean_width(wide, sigma)
                if width < best:
                    best, without[:, dimension] = width, power * found
                    whole[dimension] = power * _fit(rows, residuals, signs, penalty)
    return whole, without


def _mean_width(residuals: Sequence[NDArray[np.float64]], log_sigma: Sequence[NDArray[np.float64]]) -> float:
    """The mean width of intervals with the coverage LEVEL, where each person has the same weight."""
    share = np.concatenate([np.full(len(it), 1 / (len(it) * len(residuals))) for it in residuals])
    sigma = np.exp(np.concatenate(log_sigma))
    scores = np.concatenate(residuals) / sigma
    order = np.argsort(scores)
    quantile = scores[order][np.searchsorted(np.cumsum(share[order]), LEVEL).clip(max=len(order) - 1)]
    return float(quantile * (share @ sigma))


def _fit(
    rows: Sequence[NDArray[np.float64]],
    residuals: Sequence[NDArray[np.float64]],
    signs: NDArray[np.int64],
    penalty: float,
) -> NDArray[np.float64]:
    """The weights [c] of log sigma: the minimum of the mean over people of the loss, plus a ridge penalty.

    Newton's method; a weight at the end of its sign stays there while the gradient points outwards. The loss is convex.
    """
    share = np.concatenate([np.full(len(it), 1 / (len(it) * len(residuals))) for it in residuals])
    design = np.concatenate([np.ones((len(share), 1)), np.concatenate(rows)], 1)
    residual = np.concatenate(residuals)
    ridge = np.concatenate(([0.0], np.full(len(signs), penalty / len(residuals))))
    sign = np.concatenate(([0], signs))
    weight = np.zeros(design.shape[1])
    weight[0] = np.log(share @ residual)

    def objective(at: NDArray[np.float64]) -> float:
        log_sigma = design @ at
        return float(share @ (log_sigma + residual * np.exp(-log_sigma)) + 0.5 * ridge @ at**2)

    value = objective(weight)
    for _ in range(20):
        ratio = share * residual * np.exp(-(design @ weight))
        gradient = design.T @ (share - ratio) + ridge * weight
        hessian = design.T @ (design * ratio[:, None]) + np.diag(ridge + 1e-9)
        free = ~((sign != 0) & (weight == 0) & (gradient * sign > 0))
        step = np.zeros_like(weight)
        step[free] = -np.linalg.solve(hessian[np.ix_(free, free)], gradient[free])
        length = 1.0
        while True:
            new = weight + length * step
            new = np.where(sign * new < 0, 0.0, new)
            after = objective(new)
            if after <= value or length < 1e-6:
                break
            length /= 2
        done = value - after < 1e-6
        weight, value = (new, after) if after <= value else (weight, value)
        if done:
            break
    return weight[1:]


def _quantiles(scores: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The quantiles of the scores [n, 2] of k people for all levels, [2, GRID]; inf above k / (k + 1).

    The guaranteed quantile of a level is that at level * (k + 1) / k of the distribution in which each person has the
    same weight. It covers more than the level, except where the people differ as much as they can. The other one is the
    smallest at which the mean coverage of people who are left out in turn is a standard error above the level. The
    smaller one is used.
    """
    k = len(scores)
    levels = np.linspace(0, 1, GRID)
    found = np.empty((2, GRID))
    for dimension in range(2):
        own = [np.sort(person[:, dimension]) for person in scores]
        every = np.concatenate(own)
        order = np.argsort(every, kind="stable")
        every, person = every[order], np.repeat(np.arange(k), [len(it) for it in own])[order]
        share = np.concatenate([np.full(len(it), 1 / len(it)) for it in own])[order]
        pooled = _at_levels(every, np.cumsum(share) / k, levels)
        found[dimension] = _at_levels(every, np.cumsum(share) / k, np.minimum(1, levels * (k + 1) / k))
        if k > 1:
            covered = np.empty((k, GRID))
            for left_out, one in enumerate(own):
                rest = np.cumsum(np.where(person == left_out, 0.0, share)) / (k - 1)
                covered[left_out] = np.searchsorted(one, _at_levels(every, rest, levels), side="right") / len(one)
            low = covered.mean(0) - covered.std(0, ddof=1) / k**0.5
            enough = np.searchsorted(np.maximum.accumulate(low), levels - 1e-9)
            found[dimension] = np.minimum(found[dimension], np.append(pooled, np.inf)[enough])
    found[:, levels > k / (k + 1) + 1e-9] = np.inf
    return found


def _at_levels(
    values: NDArray[np.float64], cumulated: NDArray[np.float64], levels: NDArray[np.float64]
) -> NDArray[np.float64]:
    """For each level the smallest of the sorted values up to which at least this share lies."""
    return values[np.searchsorted(cumulated, levels - 1e-9).clip(max=len(values) - 1)]
