"""The parameter groups of the optimizer: which parameters decay, and which are trained in an epoch."""

from collections.abc import Sequence
from typing import Any

import torch


def unfreeze(optimizer: torch.optim.Optimizer, epoch: int) -> None:
    """Enables gradients for the groups with `from_epoch` up to this epoch, and disables the others."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.requires_grad_(epoch >= group.get("from_epoch", 1))


def split_by_decay(groups: Sequence[dict[str, Any]], weight_decay: float) -> list[dict[str, Any]]:
    """Splits each group into its matrices, with weight decay, and its biases and norms, without."""
    split: list[dict[str, Any]] = []
    for group in groups:
        parameters = [parameter for parameter in group["params"] if parameter.requires_grad]
        matrices = [parameter for parameter in parameters if parameter.ndim > 1]
        rest = [parameter for parameter in parameters if parameter.ndim <= 1]
        if matrices:
            split.append({"weight_decay": weight_decay, **group, "params": matrices})
        if rest:
            split.append({**group, "params": rest, "weight_decay": 0.0})
    return split
