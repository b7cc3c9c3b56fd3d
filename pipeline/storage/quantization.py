"""Weights as 8-bit integers: a quarter of the size on the disk. They are float32 again when they are read.

Each output channel (row of the first dimension) has its own scale, as is usual for convolutions: weight = scale * q,
with q in -127..127. Small tensors and tensors with one dimension stay as they are.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SCALE = ".int8_scale"
"""Suffix of the name of the scales [channels] of a tensor."""
MIN_NUMBERS = 16384
"""Tensors with fewer numbers are not quantized."""


def quantize(state: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    """The large tensors as int8 with their scales, the others unchanged. The largest error of a weight is half a scale:
    0.4 % of the largest weight in its channel."""
    import torch

    quantized: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not tensor.is_floating_point() or tensor.ndim < 2 or tensor.numel() < MIN_NUMBERS:
            quantized[name] = tensor
            continue
        rows = tensor.float().flatten(1)
        scale = rows.abs().amax(1).clamp(min=1e-12) / 127
        quantized[name] = (rows / scale[:, None]).round().to(torch.int8).view(tensor.shape)
        quantized[name + SCALE] = scale
    return quantized


def dequantize(state: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    """The inverse of `quantize`, float32. A state without quantized tensors is returned unchanged."""
    scales = {name.removesuffix(SCALE): scale for name, scale in state.items() if name.endswith(SCALE)}
    return {
        name: tensor.float() * scales[name].view(-1, *[1] * (tensor.ndim - 1)) if name in scales else tensor
        for name, tensor in state.items()
        if not name.endswith(SCALE)
    }
