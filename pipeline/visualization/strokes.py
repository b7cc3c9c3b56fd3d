"""Draws lines, dots and bands into a picture, uint8 [h, w, 3], at fractions of a pixel."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]
FRACTION_BITS = 4
"""Fractional bits in the coordinates for cv2."""


def draw_line(shown: Picture, points: Any, colour: Any, width: float) -> None:
    fine = np.round(np.asarray(points, np.float64) * (1 << FRACTION_BITS)).astype(np.int32)
    cv2.polylines(shown, [fine.reshape(-1, 1, 2)], False, colour, max(1, round(width)), cv2.LINE_AA, FRACTION_BITS)


def draw_band(
    shown: Picture, x: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64], colour: Colour
) -> None:
    """Shades the area between two curves and draws its edges, thin and dim."""
    for part in split_at_nan(np.stack((x, low, high), 1)):
        outline = np.concatenate((part[:, :2], part[::-1, ::2]))
        left, top = np.maximum(np.floor(outline.min(0)).astype(int), 0)
        right, bottom = np.ceil(outline.max(0)).astype(int) + 1
        region = shown[top:bottom, left:right]
        if len(part) < 2 or not region.size:
            continue
        shaded = region.copy()
        cv2.fillPoly(shaded, [np.round(outline - (left, top)).astype(np.int32)], colour)
        region[:] = cv2.addWeighted(shaded, 0.22, region, 0.78, 0)
        for column in (1, 2):
            draw_line(shown, part[:, (0, column)], tuple(round(0.6 * ink) for ink in colour), 0.8)


def draw_dot(shown: Picture, x: float, y: float, radius: float, colour: Any) -> None:
    fine = 1 << FRACTION_BITS
    cv2.circle(shown, (round(x * fine), round(y * fine)), round(radius * fine), colour, -1, cv2.LINE_AA, FRACTION_BITS)


def split_at_nan(points: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """The parts of the line between missing points."""
    there = np.isfinite(points).all(1)
    cuts = np.flatnonzero(~there)
    return [part for part in (run[np.isfinite(run).all(1)] for run in np.split(points, cuts)) if len(part)]
