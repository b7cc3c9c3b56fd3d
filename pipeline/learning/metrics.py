"""Metrics of predictions against annotations: population statistics in float64, pooled over all valid frames."""

import numpy as np
from numpy.typing import NDArray

from ..records import DIMENSIONS


def pooled(predictions: NDArray, targets: NDArray, valid: NDArray[np.bool_]) -> dict[str, float]:
    """The metrics over the frames of all subjects as one sequence.

    predictions, targets: [n, 2] (valence, arousal). valid: bool [n]; other frames are ignored.
    Returns ccc_, pcc_, rmse_, mse_, mae_ and sign_ (share of equal signs, Nicolaou et al., 2011) of each dimension,
    ccc_mean, and frames, the number of valid frames. A constant column has a ccc_ and pcc_ of 0.
    Raises ValueError if no frame is valid.
    """
    if predictions.shape != targets.shape or predictions.shape != (len(valid), len(DIMENSIONS)):
        raise ValueError(f"predictions {predictions.shape}, targets {targets.shape}, valid {valid.shape} do not match")
    if not valid.any():
        raise ValueError("no frame is valid")
    figures: dict[str, float] = {}
    for column, name in enumerate(DIMENSIONS):
        x = predictions[valid, column].astype(np.float64)
        y = targets[valid, column].astype(np.float64)
        figures[f"ccc_{name}"] = ccc(x, y)
        figures[f"pcc_{name}"] = pearson(x, y)
        mse = float(np.mean((x - y) ** 2))
        figures[f"mse_{name}"], figures[f"rmse_{name}"] = mse, mse**0.5
        figures[f"mae_{name}"] = float(np.mean(np.abs(x - y)))
        figures[f"sign_{name}"] = float(np.mean(np.sign(x) == np.sign(y)))
    figures["ccc_mean"] = (figures["ccc_valence"] + figures["ccc_arousal"]) / 2
    figures["frames"] = int(valid.sum())
    return figures


def ccc(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Concordance correlation coefficient of two series [n], in [-1, 1] (Lin, 1989). 0 if either is constant."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    covariance = np.mean((x - x.mean()) * (y - y.mean()))
    return float(2 * covariance / (x.var() + y.var() + (x.mean() - y.mean()) ** 2))


def pearson(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Pearson's correlation of two series [n], in [-1, 1]. 0 if either is constant."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    # The product of the deviations: the product of the variances underflows to 0 for nearly constant series.
    scale = x.std() * y.std()
    return float(np.clip(np.mean((x - x.mean()) * (y - y.mean())) / scale, -1, 1)) if scale else 0.0
