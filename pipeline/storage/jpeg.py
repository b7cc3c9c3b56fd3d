"""JPEG in and out, by OpenCV. It and torch are imported when there is a picture, and torch only for tensors."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


def encode(pixels: NDArray[np.uint8], quality: int) -> list[NDArray[np.uint8]]:
    """One JPEG, as uint8 [bytes], of each picture. pixels: uint8 [t, h, w, 3], RGB. quality: 1 to 100."""
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return [
        cast(NDArray[np.uint8], cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)[1])
        for picture in pixels
    ]


def decode(jpegs: Sequence[NDArray[np.uint8]]) -> "Tensor":
    """The pictures of same-sized JPEGs: uint8 torch [t, 3, h, w], RGB, in memory as channels_last. Raises OSError for
    what is none."""
    import cv2
    import torch

    pixels = np.empty((0, 0, 0, 3), np.uint8)
    for place, jpeg in enumerate(jpegs):
        picture = cv2.imdecode(jpeg, cv2.IMREAD_COLOR_RGB) if len(jpeg) else None
        if picture is None:
            raise OSError(f"{len(jpeg)} bytes are not a JPEG")
        if not place:
            pixels = np.empty((len(jpegs), *picture.shape), np.uint8)
        pixels[place] = picture
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)
