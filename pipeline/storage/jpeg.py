"""JPEG in by OpenCV, without torch, and out by torchvision, as tensors. Both are imported when a picture is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


def encode(pixels: NDArray[np.uint8], quality: int) -> list[NDArray[np.uint8]]:
    """One JPEG, as uint8 [bytes], of each picture. pixels: uint8 [t, h, w, 3], RGB. quality: 1 to 100."""
    # torchvision's encoder gives the same bytes at the same speed, but loading torch takes longer than a short video.
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return [
        cast(NDArray[np.uint8], cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)[1])
        for picture in pixels
    ]


def decode(jpegs: Sequence[NDArray[np.uint8]]) -> "Tensor":
    """The pictures of same-sized JPEGs: uint8 torch [t, 3, h, w], RGB."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    if not jpegs:
        return torch.empty(0, 3, 0, 0, dtype=torch.uint8)
    pictures = decode_jpeg([torch.from_numpy(jpeg) for jpeg in jpegs], ImageReadMode.RGB)
    return torch.stack(list(pictures))
