"""Draws still backgrounds with objects that resemble faces."""

from collections.abc import Callable

import cv2
import numpy as np

from .brush import Brush, Colour, Image, mix, oval, smooth

PAN = 48
"""Margin in pixels around the frame, over which the camera moves."""

_WALLS = (
    (214, 205, 190), (178, 190, 196), (196, 178, 164), (150, 166, 156), (120, 132, 150), (226, 214, 200),
    (164, 140, 130), (96, 108, 116), (198, 200, 176), (140, 120, 140),
)  # fmt: skip
_ACCENTS = (
    (188, 74, 60), (222, 160, 70), (70, 120, 140), (94, 134, 96), (60, 70, 100), (150, 96, 130), (232, 222, 200),
    (120, 84, 60), (88, 150, 170), (204, 120, 100),
)  # fmt: skip
_SKINLIKE = ((236, 188, 150), (214, 160, 118), (172, 116, 78), (120, 78, 52))
_WOOD = (112, 82, 60)


def draw_background(rng: np.random.Generator, width: int, height: int) -> Image:
    """A still background with distractors, uint8 [height + 2 PAN, width + 2 PAN, 3] RGB."""
    w, h = width + 2 * PAN, height + 2 * PAN
    image = np.zeros((h, w, 3), np.uint8)
    brush = Brush(image, 0, 0, h)
    kinds: tuple[Callable[[np.random.Generator, Brush, float], None], ...]
    kinds = (_studio, _room, _bricks, _shelf, _hills, _lights)
    kinds[rng.integers(len(kinds))](rng, brush, w / h)
    return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.6, 2.2)), np.uint8)


def draw_ball(rng: np.random.Generator, brush: Brush, x: float, y: float, r: float) -> None:
    """A ball of radius r. Half of them have the colour of skin, like a face without features."""
    colour = _pick(rng, _SKINLIKE if rng.random() < 0.5 else _ACCENTS)
    brush.oval(x, y, r * rng.uniform(0.72, 1.0), r, mix(colour, (0, 0, 0), 0.12))
    brush.oval(x - 0.05 * r, y - 0.06 * r, 0.68 * r, 0.9 * r, colour)
    brush.oval(x - 0.28 * r, y - 0.42 * r, 0.16 * r, 0.14 * r, mix(colour, (255, 255, 255), 0.6))


def _studio(rng: np.random.Generator, brush: Brush, aspect: float) -> None:
    """A studio backdrop with light from above."""
    wall = _pick(rng, _WALLS if rng.random() < 0.5 else _ACCENTS)
    _wash(brush, mix(wall, (255, 255, 255), 0.15), mix(wall, (20, 20, 40), 0.45))
    for _ in range(rng.integers(0, 4)):
        draw_ball(rng, brush, rng.uniform(0, aspect), rng.uniform(0, 1), rng.uniform(0.04, 0.14))


def _room(rng: np.random.Generator, brush: Brush, aspect: float) -> None:
    """A wall with a window and pictures, and a table in front of it."""
    wall = _pick(rng, _WALLS)
    _wash(brush, wall, mix(wall, (60, 50, 40), 0.25))
    x, y = rng.uniform(0.05, aspect - 0.6), rng.uniform(0.1, 0.25)
    _box(brush, x - 0.03, y - 0.03, 0.56, 0.51, (238, 234, 226))
    _box(brush, x, y, 0.5, 0.45, (176, 208, 228))
    _box(brush, x, y + 0.3, 0.5, 0.15, (134, 164, 120))
    _box(brush, x + 0.24, y, 0.02, 0.45, (238, 234, 226))
    curtain = _pick(rng, _ACCENTS)
    for at in (x - 0.12, x + 0.46):
        for k in range(4):
            _box(brush, at + 0.04 * k, y - 0.06, 0.04, 0.66, mix(curtain, (0, 0, 0), 0.2 * (k % 2)))
    for _ in range(rng.integers(1, 4)):
        _poster(rng, brush, rng.uniform(0, aspect), rng.uniform(0.08, 0.5))
    table = mix(_WOOD, wall, rng.uniform(0, 0.4))
    _box(brush, 0, 0.84, aspect, 0.16, table)
    _box(brush, 0, 0.84, aspect, 0.015, mix(table, (255, 255, 255), 0.25))
    for _ in range(rng.integers(0, 3)):
        r = rng.uniform(0.05, 0.11)
        draw_ball(rng, brush, rng.uniform(0, aspect), 0.86 - r, r)


def _bricks(rng: np.random.Generator, brush: Brush, aspect: float) -> None:
    base, tall = _pick(rng, ((158, 96, 78), (176, 168, 158), (128, 92, 80), (120, 128, 136))), rng.uniform(0.05, 0.08)
    _wash(brush, mix(base, (0, 0, 0), 0.35), mix(base, (0, 0, 0), 0.45))
    for row in range(int(1 / tall) + 1):
        for column in range(-1, int(aspect / tall / 2.4) + 1):
            shade = mix(base, (40, 20, 20) if rng.random() < 0.5 else (240, 220, 200), rng.uniform(0, 0.22))
            _box(brush, (column + 0.5 * (row % 2)) * 2.4 * tall, row * tall, 2.28 * tall, 0.88 * tall, shade)
    for _ in range(rng.integers(0, 3)):
        _poster(rng, brush, rng.uniform(0, aspect), rng.uniform(0.05, 0.5))


def _shelf(rng: np.random.Generator, brush: Brush, aspect: float) -> None:
    wood = mix(_WOOD, (40, 26, 20), rng.uniform(0, 0.6))
    _wash(brush, mix(wood, (0, 0, 0), 0.45), mix(wood, (0, 0, 0), 0.55))
    for floor in np.arange(0.27, 1.2, 0.27):
        x = -0.02
        while x < aspect:
            if rng.random() < 0.07:
                r = rng.uniform(0.06, 0.09)
                draw_ball(rng, brush, x + r, floor - r, r)
                x += 2 * r + 0.02
                continue
            thick, tall = rng.uniform(0.022, 0.055), rng.uniform(0.15, 0.225)
            colour = mix(_pick(rng, _ACCENTS), (70, 60, 50), rng.uniform(0.1, 0.5))
            _box(brush, x, floor - tall, thick - 0.004, tall, colour)
            _box(brush, x, floor - 0.8 * tall, thick - 0.004, 0.014, mix(colour, (240, 220, 160), 0.5))
            x += thick
        _box(brush, 0, floor, aspect, 0.022, wood)


def _hills(rng: np.random.Generator, brush: Brush, aspect: float) -> None:
    """Sky, hills, trees, and often a low sun of the size of a face."""
    dusk = rng.random() < 0.4
    _wash(brush, (236, 150, 110) if dusk else (116, 168, 214), (250, 216, 170) if dusk else (214, 230, 236))
    if rng.random() < 0.6:
        brush.oval(rng.uniform(0, aspect), rng.uniform(0.1, 0.4), 0.09, 0.09, (252, 232, 176))
    for k in range(3):
        green = mix((88, 112, 110) if dusk else (126, 160, 140), (48, 84, 52), k / 2)
        xs = np.linspace(-0.1, aspect + 0.1, 8)
        ridge = smooth(np.stack([xs, 0.5 + 0.14 * k + rng.uniform(-0.06, 0.06, 8)], axis=1), closed=False)
        brush.fill(np.concatenate([ridge, [(aspect + 0.1, 1.1), (-0.1, 1.1)]]), green)
        for _ in range(rng.integers(0, 4)):
            x, y, r = rng.uniform(0, aspect), 0.5 + 0.14 * k, rng.uniform(0.05, 0.08) * (1 + k)
            brush.line([(x, y + 1.6 * r), (x, y)], (84, 62, 48), 0.2 * r)
            for dx, dy in ((0, 0), (-0.55, 0.35), (0.55, 0.3)):
                brush.oval(x + dx * r, y + dy * r, 0.8 * r, 0.75 * r, mix(green, (30, 70, 40), rng.uniform(0.3, 0.6)))


def _lights(rng: np.random.Generator, brush: Brush, aspect: float) -> None:
    """Street lights at night, out of focus."""
    _wash(brush, (20, 24, 46), (52, 40, 58))
    layer = Brush(brush.image.copy(), 0, 0, brush.unit)
    for _ in range(rng.integers(25, 45)):
        r = rng.uniform(0.03, 0.1)
        colour = _pick(rng, ((255, 196, 110), (255, 140, 90), (120, 190, 255), (255, 236, 200), (230, 100, 130)))
        layer.oval(rng.uniform(0, aspect), rng.beta(2, 2), r, r, colour)
        cv2.addWeighted(layer.image, 0.3, brush.image, 0.7, 0, dst=brush.image)
        layer.image[:] = brush.image


def _poster(rng: np.random.Generator, brush: Brush, x: float, y: float) -> None:
    """A framed picture: stripes, a landscape, or the outline of a head."""
    w, h = rng.uniform(0.16, 0.3), rng.uniform(0.2, 0.36)
    _box(brush, x, y, w, h, mix(_WOOD, (20, 20, 20), rng.uniform(0, 0.8)))
    x, y, w, h = x + 0.012, y + 0.012, w - 0.024, h - 0.024
    ground, kind = _pick(rng, _WALLS + _ACCENTS), rng.integers(3)
    _box(brush, x, y, w, h, ground)
    if kind == 0:
        for k in range(5):
            _box(brush, x, y + h * k / 5, w, h / 10, _pick(rng, _ACCENTS))
    elif kind == 1:
        brush.oval(x + 0.7 * w, y + 0.3 * h, 0.1 * w, 0.1 * w, (244, 214, 130))
        brush.fill([(x, y + h), (x + 0.4 * w, y + 0.45 * h), (x + w, y + h)], _pick(rng, _ACCENTS))
    else:
        skin = _pick(rng, _SKINLIKE)
        brush.fill([(x + 0.1 * w, y + h), (x + 0.5 * w, y + 0.66 * h), (x + 0.9 * w, y + h)], _pick(rng, _ACCENTS))
        brush.fill(oval(x + 0.5 * w, y + 0.42 * h, 0.27 * w, 0.3 * h), skin)
        brush.fill(oval(x + 0.5 * w, y + 0.24 * h, 0.29 * w, 0.16 * h), mix(skin, (30, 20, 20), 0.8))


def _wash(brush: Brush, top: Colour, low: Colour) -> None:
    """Fills the image with a vertical gradient."""
    down = np.linspace(0, 1, len(brush.image))[:, None, None]
    brush.image[:] = (np.asarray(top) + (np.asarray(low) - np.asarray(top)) * down).astype(np.uint8)


def _box(brush: Brush, x: float, y: float, w: float, h: float, colour: Colour) -> None:
    brush.fill([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], colour)


def _pick(rng: np.random.Generator, colours: tuple[tuple[int, int, int], ...]) -> Colour:
    r, g, b = np.clip(np.asarray(colours[rng.integers(len(colours))]) + rng.uniform(-12, 12, 3), 0, 255)
    return (float(r), float(g), float(b))
