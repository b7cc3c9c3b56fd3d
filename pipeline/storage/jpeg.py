"""Encodes and decodes JPEG with OpenCV. OpenCV and torch are imported on first use."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

MAX_PIXELS = 1 << 26
"""The largest image that is decoded. A damaged JPEG of a few hundred bytes can claim a much larger size."""


def encode(pixels: NDArray[np.uint8], quality: int) -> list[NDArray[np.uint8]]:
    """Encodes each frame as a JPEG, uint8 [bytes]. pixels: uint8 [t, h, w, 3], RGB. quality: 1 to 100."""
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    bgr = np.empty(pixels.shape[1:], np.uint8)  # one buffer for all frames stays in the CPU cache
    return [
        cast(NDArray[np.uint8], cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR, bgr), options)[1])
        for picture in pixels
    ]


def decode(jpegs: Sequence[NDArray[np.uint8]]) -> "Tensor":
    """Decodes JPEGs of the same size to uint8 [t, 3, h, w], RGB, in channels_last memory format.

    Raises OSError for data that is not a JPEG.
    """
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))  # OpenCV reads it at import
    import cv2
    import torch

    pixels = np.empty((0, 0, 0, 3), np.uint8)
    for i, jpeg in enumerate(jpegs):
        try:
            picture = cv2.imdecode(jpeg, cv2.IMREAD_COLOR_RGB) if len(jpeg) else None
        except cv2.error as error:
            raise OSError(f"{len(jpeg)} bytes cannot be decoded as a JPEG") from error
        if picture is None:
            raise OSError(f"{len(jpeg)} bytes are not a JPEG")
        if i == 0:
            pixels = np.empty((len(jpegs), *picture.shape), np.uint8)
        pixels[i] = picture
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)
