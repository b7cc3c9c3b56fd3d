"""JPEG in and out, by OpenCV. It and torch are imported when there is a picture, and torch only for tensors."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

PIXELS = 1 << 26
"""Of the largest picture that is decoded: a few hundred bytes can claim to be a hundred times larger."""


def encode(pixels: NDArray[np.uint8], quality: int) -> list[NDArray[np.uint8]]:
    """One JPEG, as uint8 [bytes], of each picture. pixels: uint8 [t, h, w, 3], RGB. quality: 1 to 100."""
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    turned = np.empty(pixels.shape[1:], np.uint8)  # one for all, which stays in the processor's cache
    return [
        cast(NDArray[np.uint8], cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR, turned), options)[1])
        for picture in pixels
    ]


def decode(jpegs: Sequence[NDArray[np.uint8]]) -> "Tensor":
    """The pictures of same-sized JPEGs: uint8 torch [t, 3, h, w], RGB, in memory as channels_last. Raises OSError for
    what is none."""
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(PIXELS))  # read when OpenCV is loaded
    import cv2
    import torch

    pixels = np.empty((0, 0, 0, 3), np.uint8)
    for place, jpeg in enumerate(jpegs):
        try:
            picture = cv2.imdecode(jpeg, cv2.IMREAD_COLOR_RGB) if len(jpeg) else None
        except cv2.error as error:
            raise OSError(f"{len(jpeg)} bytes cannot be decoded as a JPEG") from error
        if picture is None:
            raise OSError(f"{len(jpeg)} bytes are not a JPEG")
        if not place:
            pixels = np.empty((len(jpegs), *picture.shape), np.uint8)
        pixels[place] = picture
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)
