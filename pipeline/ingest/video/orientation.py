"""Rotates and mirrors decoded frames to be upright, by the display matrix of the video."""

import struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av import VideoFrame


class Orientation(NamedTuple):
    """One of eight orientations: first transposed, then flipped."""

    transposed: bool = False
    left_right: bool = False
    up_down: bool = False

    def apply(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Returns a view of a frame, uint8 [h, w, 3], which is [w, h, 3] if it is transposed."""
        if self.transposed:
            picture = picture.swapaxes(0, 1)
        return picture[:: -1 if self.up_down else 1, :: -1 if self.left_right else 1]


UPRIGHT = Orientation()


def from_matrix(a: int, b: int, c: int, d: int) -> Orientation:
    """The orientation nearest to a display matrix (a, b, c, d).

    The matrix maps the pixel (x, y) to (a x + c y, b x + d y), y downwards (ISO/IEC 14496-12, 6.2.2).
    """
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)


def orientation_of(frame: "VideoFrame") -> Orientation:
    """The orientation of a decoded frame. Upright if it has no display matrix."""
    from av.sidedata.sidedata import Type

    side = frame.side_data.get(Type.DISPLAYMATRIX)  # pyright: ignore[reportCallIssue, reportArgumentType]
    if side is None:
        return UPRIGHT
    a, b, _, c, d = struct.unpack_from("=5i", bytes(side))
    return from_matrix(a, b, c, d)
