"""Loss functions. Each takes a mask; statistics are over all frames that the mask selects."""

from typing import Literal, get_args

import torch
from torch import Tensor

Kind = Literal["ccc", "mse", "mae", "ccc+mse"]


def ccc(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Concordance correlation coefficient of each column, float64 [d] in [-1, 1] (Lin, 1989).

    prediction, target: [..., d]; mask: bool [...]; population statistics in float64 over the masked rows.
    2 cov / (var + var + (mean - mean)^2). A constant column scores 0. Fewer than two rows score 0.
    """
    a, b = _rows(prediction, mask).double(), _rows(target, mask).double()
    if len(a) < 2:
        return a.sum(0) * 0.0
    mean_a, mean_b = a.mean(0), b.mean(0)
    covariance = ((a - mean_a) * (b - mean_b)).mean(0)
    spread = (a - mean_a).square().mean(0) + (b - mean_b).square().mean(0) + (mean_a - mean_b).square()
    defined = spread > 1e-20
    return torch.where(defined, 2 * covariance / torch.where(defined, spread, 1.0), covariance * 0.0)


def affect_loss(
    kind: Kind, output: Tensor, target: Tensor, mask: Tensor | None = None, valence_weight: float = 0.5
) -> Tensor:
    """The loss, a float32 scalar: 1 - CCC, mean squared or absolute error, or the sum of the first two.

    output, target: [..., 2], (valence, arousal). mask: bool [...]; if it selects nothing, the loss is 0. The weights of
    valence and arousal are valence_weight and 1 - valence_weight.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"loss is {kind!r}, expected one of {', '.join(get_args(Kind))}")
    weight = torch.tensor([valence_weight, 1 - valence_weight], dtype=torch.float64, device=output.device)
    error = (_rows(output, mask) - _rows(target, mask)).double()
    if not len(error):
        return output.sum().float() * 0.0
    parts = {
        "ccc": lambda: 1 - ccc(output, target, mask),
        "mse": lambda: error.square().mean(0),
        "mae": lambda: error.abs().mean(0),
    }
    total = torch.stack([(weight * parts[name]()).sum() for name in kind.split("+")]).sum()
    return total.float()


def _rows(values: Tensor, mask: Tensor | None) -> Tensor:
    return values.flatten(0, -2) if mask is None else values[mask]
