"""JPEG in and out, by torchvision. Torch is imported when a picture is, not before."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


def encode(pixels: NDArray[np.uint8], quality: int) -> list[NDArray[np.uint8]]:
    """One JPEG, as uint8 [bytes], of each picture. pixels: uint8 [t, h, w, 3], RGB. quality: 1 to 100."""
    import torch
    from torchvision.io import encode_jpeg

    coded = encode_jpeg(list(torch.from_numpy(pixels).permute(0, 3, 1, 2)), quality)
    return [jpeg.numpy() for jpeg in coded]


def decode(jpegs: Sequence[NDArray[np.uint8]]) -> "Tensor":
    """The pictures of same-sized JPEGs: uint8 torch [t, 3, h, w], RGB."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    if not jpegs:
        return torch.empty(0, 3, 0, 0, dtype=torch.uint8)
    pictures = decode_jpeg([torch.from_numpy(jpeg) for jpeg in jpegs], ImageReadMode.RGB)
    return torch.stack(list(pictures))
