"""Draws antialiased shapes. `Brush` maps points in its own units to the pixels of an image."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Image = NDArray[np.uint8]
Colour = tuple[float, float, float]
_SHIFT = 4


@dataclass(frozen=True)
class Brush:
    """Draws on `image`, uint8 [h, w, 3] or [h, w]. The point (0, 0) is at pixel (x, y); one unit is `unit` pixels."""

    image: Image
    x: float
    y: float
    unit: float

    def fill(self, points: ArrayLike, colour: Colour) -> None:
        cv2.fillPoly(self.image, [self._to_fixed_point(points)], colour, cv2.LINE_AA, _SHIFT)

    def line(self, points: ArrayLike, colour: Colour, width: float, closed: bool = False) -> None:
        thickness = max(1, round(width * self.unit))
        cv2.polylines(self.image, [self._to_fixed_point(points)], closed, colour, thickness, cv2.LINE_AA, _SHIFT)

    def oval(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        self.fill(oval(x, y, rx, ry), colour)

    def _to_fixed_point(self, points: ArrayLike) -> NDArray[np.int32]:
        pixels = np.asarray(points, np.float64) * self.unit + (self.x, self.y)
        return np.round(pixels * (1 << _SHIFT)).astype(np.int32)


def oval(x: float, y: float, rx: float, ry: float, n: int = 40) -> NDArray[np.float64]:
    """The outline of an ellipse, [n, 2]."""
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def smooth(points: ArrayLike, closed: bool = True, steps: int = 8) -> NDArray[np.float64]:
    """A Catmull-Rom curve through the points [k, 2]."""
    p = np.asarray(points, np.float64)
    p = np.concatenate([p[-1:], p, p[:2]]) if closed else np.concatenate([p[:1], p, p[-1:]])
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    a, b, c, d = (p[i : len(p) - 3 + i, None, :] for i in range(4))
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    curve = curve.reshape(-1, 2)
    return curve if closed else np.concatenate([curve, p[-2:-1]])


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """A mix of two colours. share: weight of `b` in [0, 1]."""
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share)
