"""Draws the static part of a head, once per person: skin, ears, beard and hair."""

import cv2
import numpy as np
from numpy.typing import NDArray

from .brush import Brush, Image, mix, oval, smooth
from .identity import CANVAS, CENTRE, UNIT, Identity, outline

_TEMPLE = np.array([(0.98, -0.12), (0.82, -0.5)])
_HAIRLINES = {
    "crop": (0.05, _TEMPLE, [(0.35, -0.74), (0, -0.78), (-0.35, -0.74)]),
    "parted": (0.05, _TEMPLE, [(0.45, -0.72), (0.1, -0.78), (-0.25, -0.9), (-0.4, -0.74)]),
    "bob": (0.5, np.array([(0.95, 0.4), (0.84, -0.3), (0.76, -0.52)]), [(0.3, -0.58), (0, -0.6), (-0.3, -0.58)]),
    "long": (0.5, np.array([(1.0, 0.5), (0.84, -0.2), (0.68, -0.6)]), [(0.1, -0.86), (-0.05, -0.88)]),
    "scarf": (0.5, np.array([(0.98, 0.6), (0.92, -0.2), (0.74, -0.58)]), [(0, -0.76)]),
}
"""By style: lower end of the hair, hairline at the right temple (x in half widths), hairline on the forehead."""


def draw_head(who: Identity) -> tuple[Image, Image]:
    """The static head: RGB [512, 512, 3], premultiplied by its opacity, and the opacity [512, 512]."""
    n = 2 * CANVAS
    image, opacity = np.full((n, n, 3), who.cover, np.uint8), np.zeros((n, n), np.uint8)
    paint = Brush(image, 2 * CENTRE[0], 2 * CENTRE[1], 2 * UNIT)
    mask = Brush(opacity, 2 * CENTRE[0], 2 * CENTRE[1], 2 * UNIT)
    for shape in _back_hair(who):
        paint.fill(shape, mix(who.cover, (0, 0, 0), 0.25))
        mask.fill(shape, (255, 255, 255))
    for x in (-1, 1):
        ear = oval(x * who.width, 0.02, 0.11, 0.2)
        paint.fill(ear, mix(who.skin, who.shadow, 0.45))
        paint.oval(x * (who.width + 0.015), 0.02, 0.05, 0.12, mix(who.skin, who.shadow, 0.9))
        mask.fill(ear, (255, 255, 255))
        if who.earrings:
            drop = oval(x * (who.width + 0.03), 0.27, 0.04, 0.05)
            paint.fill(drop, (236, 206, 110))
            mask.fill(drop, (255, 255, 255))
    edge = outline(who)
    mask.fill(edge, (255, 255, 255))
    _paint_skin(image, paint, who, edge)
    for shape in _front_hair(who):
        paint.fill(shape, who.cover)
        mask.fill(shape, (255, 255, 255))
    _paint_shine(paint, who)
    image = cv2.resize(image, (CANVAS, CANVAS), interpolation=cv2.INTER_AREA)
    opacity = cv2.resize(opacity, (CANVAS, CANVAS), interpolation=cv2.INTER_AREA)
    image = cv2.multiply(image, cv2.merge([opacity] * 3), scale=1 / 255)
    return image.astype(np.uint8), opacity.astype(np.uint8)


def _paint_skin(image: Image, paint: Brush, who: Identity, edge: NDArray[np.float64]) -> None:
    """Fills the head with skin, darker at the edge, with red cheeks."""
    n = len(image)
    area, light, cheek = (np.zeros((n, n), np.uint8) for _ in range(3))
    Brush(area, paint.x, paint.y, paint.unit).fill(edge, (255, 255, 255))
    Brush(light, paint.x, paint.y - 0.06 * paint.unit, paint.unit).fill(edge * 0.86, (255, 255, 255))
    for x in (-1, 1):
        Brush(cheek, paint.x, paint.y, paint.unit).oval(x * 0.45, 0.3, 0.17, 0.13, (255, 255, 255))
    light, cheek = (_blur(layer, 0.16 * paint.unit) for layer in (light, cheek))
    skin, shadow, blush = (
        np.asarray(colour, np.float32) for colour in (who.skin, who.shadow, mix(who.skin, (214, 84, 80), 0.5))
    )
    lit = light[..., None].astype(np.float32) / 255
    warm = cheek[..., None].astype(np.float32) / 255 * 0.55
    colour = shadow + (skin - shadow) * (0.35 + 0.65 * lit)
    colour += (blush - colour) * warm
    share = area[..., None].astype(np.float32) / 255
    image[:] = (image + (colour - image) * share).astype(np.uint8)
    if who.beard:
        _paint_beard(image, paint, who, edge)
    if who.freckles:
        spots = np.random.default_rng(int(who.skin[0] * 1000)).normal((0, 0.2), (0.3, 0.1), (40, 2))
        for x, y in spots:
            paint.oval(x, y, 0.011, 0.011, mix(who.skin, who.shadow, 0.7))


def _paint_beard(image: Image, paint: Brush, who: Identity, edge: NDArray[np.float64]) -> None:
    if who.beard == "moustache":
        return
    layer = image.copy()
    brush = Brush(layer, paint.x, paint.y, paint.unit)
    if who.beard == "goatee":
        brush.fill(smooth([(-0.2, 0.75), (0.2, 0.75), (0.22, 0.98), (0, 1.02), (-0.22, 0.98)]), who.hair)
        share = 0.9
    else:
        low = edge[edge[:, 1] >= 0.12]
        inner = [(-0.62, 0.3), (-0.45, 0.36), (-0.22, 0.34), (0, 0.31), (0.22, 0.34), (0.45, 0.36), (0.62, 0.3)]
        brush.fill(np.concatenate([low, np.asarray(inner) * (who.width / 0.78, 1)]), who.hair)
        share = 0.85 if who.beard == "full" else 0.3
        layer = _blur(layer, 0.02 * paint.unit)
    inside = np.zeros(image.shape[:2], np.uint8)
    Brush(inside, paint.x, paint.y, paint.unit).fill(edge, (255, 255, 255))
    weight = inside[..., None].astype(np.float32) / 255 * share
    image[:] = (image + (layer.astype(np.float32) - image) * weight).astype(np.uint8)


def _arc(who: Identity, grow: float, low: float = 0.0, n: int = 24) -> NDArray[np.float64]:
    """An arc over the crown from left to right, `grow` outside the head, with its ends at y = low."""
    angle = np.linspace(0, np.pi, n)
    arc = np.stack([-(who.width + grow) * np.cos(angle), -(1 + grow) * np.sin(angle)], axis=1)
    return np.concatenate([[(arc[0, 0], low)], arc, [(arc[-1, 0], low)]])


def _back_hair(who: Identity) -> list[NDArray[np.float64]]:
    w = who.width
    if who.style in ("bob", "long", "scarf"):
        low, flare = {"bob": (0.62, 0.22), "long": (1.3, 0.3), "scarf": (1.15, 0.2)}[who.style]
        ends = [(w + flare, low - 0.1), (w * 0.7, low + 0.06), (-w * 0.7, low + 0.06), (-w - flare, low - 0.1)]
        return [np.concatenate([_arc(who, 0.16), smooth(ends, closed=False)])]
    if who.style == "curly":
        return [oval(x, y, 0.26, 0.26) for x, y in _arc(who, 0.12, 0.1, 14)]
    if who.style == "bun":
        return [oval(0, -1.2, 0.26, 0.22)]
    return []


def _front_hair(who: Identity) -> list[NDArray[np.float64]]:
    """The hair above the forehead: over the crown and back along the hairline."""
    w, s = who.width, who.side
    if who.style == "bald":
        return []
    if who.style == "receding":
        tuft = np.add([(0.05, 0), (0.08, -0.35), (-0.08, -0.66), (-0.15, -0.48), (-0.03, -0.15)], (w, 0))
        return [smooth(tuft * (x, 1)) for x in (-1, 1)]
    end, right, middle = _HAIRLINES.get(who.style, _HAIRLINES["crop"])
    left = right[::-1] * (-1, 1)
    inner = smooth(np.concatenate([right * (w, 1), middle, left * (w, 1)]), closed=False)
    if who.style == "parted" and s < 0:
        inner = inner[::-1] * (-1, 1)
    shapes = [np.concatenate([_arc(who, 0.18 if who.style == "parted" else 0.1, end), inner])]
    if who.style == "spiky":
        for a in np.linspace(0.35, np.pi - 0.35, 9):
            root = [(-(w + 0.05) * np.cos(b), -1.05 * np.sin(b)) for b in (a - 0.2, a + 0.2)]
            shapes.append(np.array([root[0], (-(w + 0.3) * np.cos(a), -1.32 * np.sin(a)), root[1]]))
    if who.style == "curly":
        shapes += [oval(x, y, 0.17, 0.15) for x, y in _arc(who, -0.05, -0.3, 12)[2:-2]]
    return shapes


def _paint_shine(paint: Brush, who: Identity) -> None:
    """Draws highlights on the crown."""
    if who.style in ("bald", "receding"):
        paint.image[:] = cv2.addWeighted(paint.image, 1, _glow(paint, who), 0.16, 0)
        return
    if who.style in ("curly", "spiky"):
        return
    for k, (start, stop) in enumerate(((0.28, 0.44), (0.32, 0.47), (0.36, 0.46))):
        a = np.linspace(start, stop, 12) * np.pi
        r = 0.99 - 0.055 * k
        arc = np.stack([-who.side * (who.width + 0.02) * r * np.cos(a), -1.02 * r * np.sin(a)], axis=1)
        paint.line(arc, mix(who.cover, (255, 255, 255), 0.16 - 0.03 * k), 0.03)


def _glow(paint: Brush, who: Identity) -> Image:
    layer = np.zeros_like(paint.image)
    Brush(layer, paint.x, paint.y, paint.unit).oval(who.side * 0.22, -0.72, 0.2, 0.1, (255, 255, 255))
    return _blur(layer, 0.07 * paint.unit)


def _blur(image: Image, sigma: float) -> Image:
    """Gaussian blur. A wide blur is computed on a smaller image, which is faster and looks the same."""
    shrink = max(1, round(sigma / 4))
    if shrink == 1:
        return cv2.GaussianBlur(image, (0, 0), sigma).astype(np.uint8)
    h, w = image.shape[:2]
    small = cv2.resize(image, (w // shrink, h // shrink), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / shrink)
    return cv2.resize(small, (w, h), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
