"""Draws over a frame: the face box, both values as bars, their last seconds as curves, and the point on the plane.

The parts that do not change are drawn once, three times as large, and scaled down for smooth edges. A dark gradient at
the bottom keeps the light text readable on any scene. The colours are those of the dark theme.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..inference.trace import Moment
from ..records import DIMENSIONS
from .strokes import Colour, Picture, draw_band, draw_dot, draw_line, split_at_nan
from .style import DARK, FONTS, PEOPLE, PLANE_WORDS, import_matplotlib

MAX_WIDTH = 1280
MAX_HEIGHT = 4096
MIN_SIDE = 64
TRACE_SECONDS = 6.0
"""Length of the curves."""
TRAIL_SECONDS = 1.2
"""Length of the trail on the plane."""
SUPERSAMPLING = 3
"""Scale at which the parts that do not change are drawn."""


def shown_size(width: int, height: int) -> tuple[int, int]:
    """Size of the overlay video: even, and at most MAX_WIDTH by MAX_HEIGHT. A video whose shorter side is below
    MIN_SIDE is enlarged as far as these limits allow."""
    scale = min(max(1.0, MIN_SIDE / min(width, height)), MAX_WIDTH / width, MAX_HEIGHT / height)
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


class Overlay:
    """Draws the overlay frame by frame. It remembers the values of the last TRACE_SECONDS.

    width, height: in stored pixels, like the boxes. people: how many at most. shape: width and height as displayed, if
    pixels are not square.
    """

    def __init__(self, width: int, height: int, people: int = 1, shape: tuple[int, int] | None = None) -> None:
        self.source, self.size, self.people = (width, height), shown_size(*(shape or (width, height))), people
        w, h = self.size
        self.unit = max(0.75, min(w / 640, h / 360))
        self.disc = round(min(118 * self.unit, 0.42 * w, 0.42 * h))
        self.high = round(min(86 * self.unit, 0.4 * h))
        self.colours = [_rgb(PEOPLE[person % len(PEOPLE)]) for person in range(people)]
        self._trail: list[deque[tuple[float, ...]]] = [deque() for _ in range(people)]
        self._static = self._draw_static()

    def draw(self, picture: Picture, moments: Sequence[Moment]) -> Picture:
        """Returns the frame with its overlay, uint8 [h, w, 3].

        picture: uint8 [height, width, 3] RGB, in the size of the source. moments: one per person, in order.
        """
        stretched = self.size[0] > self.source[0] + 1 or self.size[1] > self.source[1] + 1
        scaled = cv2.resize(picture, self.size, interpolation=cv2.INTER_LINEAR if stretched else cv2.INTER_AREA)
        shown = np.ascontiguousarray(scaled, np.uint8)
        self.remember(moments)
        for person, moment in enumerate(moments):
            if moment.seen:
                self._box(shown, moment, self.colours[person])
        colour, opacity = self._static
        top = self.size[1] - len(opacity)
        part = shown[top:]
        part[:] = ((part * (255 - opacity).astype(np.uint16)) // 255 + colour).astype(np.uint8)
        for person, moment in enumerate(moments):
            self._meters(shown, person, moment)
            self._traces(shown, person, moment.time)
        for person, moment in enumerate(moments):
            self._point(shown, person, moment)
        return shown

    def remember(self, moments: Sequence[Moment]) -> None:
        """Adds the values of a frame to the curves without drawing it."""
        for trail, moment in zip(self._trail, moments, strict=True):
            ends = (moment.valence_low, moment.valence_high, moment.arousal_low, moment.arousal_high)
            trail.append((moment.time, moment.valence, moment.arousal, *ends))
            while trail and trail[0][0] < moment.time - TRACE_SECONDS:
                trail.popleft()

    # Layout: a panel of equal width for each person, and the plane as a disc on the right.

    def _panel(self, person: int) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 of a person's panel."""
        w, h = self.size
        edge = 14 * self.unit
        wide = (w - self.disc - 3 * edge) / self.people
        x0 = edge + person * wide
        return x0, h - self.high + 8 * self.unit, x0 + wide - edge, h - 10 * self.unit

    def _meter(self, person: int, row: int) -> tuple[float, float, float, float]:
        """The bar of valence (row 0) or arousal (row 1), below its label."""
        x0, y0, x1, y1 = self._panel(person)
        each = (y1 - y0) / 2
        right = x0 + min((x1 - x0) * 0.48, 170 * self.unit)
        y = y0 + each * row + 21 * self.unit
        return x0, y, right, y + 6 * self.unit

    def _window(self, person: int) -> tuple[float, float, float, float]:
        """The box of the curves."""
        _, y0, x1, y1 = self._panel(person)
        return self._meter(person, 0)[2] + 16 * self.unit, y0 + 4 * self.unit, x1, y1 - 3 * self.unit

    def _disc(self) -> tuple[float, float, float]:
        """Centre and radius of the plane."""
        w, h = self.size
        half = self.disc / 2
        return w - half - 12 * self.unit, h - half - 10 * self.unit, half - 7 * self.unit

    def _draw_static(self) -> tuple[NDArray[np.uint16], Picture]:
        """The parts that do not change, for the last k lines: colour [k, w, 3] to add, and opacity [k, w, 1] of 255."""
        w, h = self.size
        tall = min(h, max(self.high, self.disc + round(20 * self.unit)) + round(26 * self.unit))
        top = h - tall
        # Pillow replaces pixels instead of blending them, so the gradient is a picture of its own.
        ground, large = (Image.new("RGBA", (w * SUPERSAMPLING, tall * SUPERSAMPLING)) for _ in range(2))
        draw = ImageDraw.Draw(ground)
        begin = (h - self.high - 24 * self.unit - top) * SUPERSAMPLING
        for y in range(max(0, round(begin)), tall * SUPERSAMPLING):  # a gradient, darker to the bottom
            share = min(1.0, (y - begin) / (24 * self.unit * SUPERSAMPLING))
            draw.line([(0, y), (w * SUPERSAMPLING, y)], (12, 14, 19, round(200 * share * share * (3 - 2 * share))))
        x, y, radius = self._disc()
        _ScaledPen(draw, top).oval(x, y, radius + 7 * self.unit, fill=(12, 14, 19, 225))
        place = _ScaledPen(ImageDraw.Draw(large), top)
        place.oval(x, y, radius, outline=(255, 255, 255, 120), width=1.1 * self.unit)
        place.line((x - radius, y, x + radius, y), (255, 255, 255, 60), 0.8 * self.unit)
        place.line((x, y - radius, x, y + radius), (255, 255, 255, 60), 0.8 * self.unit)
        for (across, up), word in PLANE_WORDS.items():
            where = (x + across * radius * 0.98, y - up * radius * 0.92)
            place.text(where, word, 8.2 * self.unit, (255, 255, 255, 165), "mm")
        for person in range(self.people):
            for row, dimension in enumerate(DIMENSIONS):
                x0, y0, x1, y1 = self._meter(person, row)
                place.bar((x0, y0, x1, y1), (255, 255, 255, 46))
                left = x0
                if self.people > 1 and row == 0:
                    place.oval(x0 + 4 * self.unit, y0 - 11 * self.unit, 3.4 * self.unit, (*self.colours[person], 255))
                if self.people > 1:
                    left += 13 * self.unit
                place.text((left, y0 - 6 * self.unit), dimension, 11.5 * self.unit, (*_rgb(DARK.of(dimension)), 255))
            x0, y0, x1, y1 = self._window(person)
            if x1 - x0 > 30 * self.unit:
                for value, strong in ((1, 28), (0, 70), (-1, 28)):
                    y = (y0 + y1) / 2 - value * (y1 - y0) / 2
                    place.line((x0, y, x1, y), (255, 255, 255, strong), 0.8 * self.unit)
        both = Image.alpha_composite(ground, large)
        small = np.asarray(both.resize((w, tall), Image.Resampling.BOX), np.uint16)
        opacity = small[..., 3:]
        return small[..., :3] * opacity // 255, opacity.astype(np.uint8)

    def _box(self, shown: Picture, moment: Moment, colour: Colour) -> None:
        scale = np.array(self.size) / self.source
        x0, y0, x1, y1 = (np.array(moment.box).reshape(2, 2) * scale).ravel().tolist()
        arm = 0.22 * min(x1 - x0, y1 - y0)
        corners = [
            [(x, y + down * arm), (x, y), (x + across * arm, y)]
            for x, across in ((x0, 1), (x1, -1)) for y, down in ((y0, 1), (y1, -1))
        ]  # fmt: skip
        for width, ink in ((4.6 * self.unit, (12, 14, 19)), (2.4 * self.unit, colour)):
            for corner in corners:
                draw_line(shown, corner, ink, width)

    def _meters(self, shown: Picture, person: int, moment: Moment) -> None:
        for row, value in enumerate((moment.valence, moment.arousal)):
            x0, y0, x1, y1 = self._meter(person, row)
            colour = _rgb(DARK.of(DIMENSIONS[row]))
            middle, y = (x0 + x1) / 2, (y0 + y1) / 2
            text = "–" if np.isnan(value) else f"{value:+.2f}".replace("-", "−")
            if not moment.seen:
                colour = tuple(round(0.5 * part + 45) for part in colour)
            if not np.isnan(value):
                reach = (x1 - x0 - (y1 - y0)) / 2
                draw_line(shown, [(middle, y), (middle + value * reach, y)], colour, y1 - y0)
                self._whisker(shown, y, [middle + end * reach for end in _ends(moment, row)])
            draw_line(
                shown, [(middle, y0 - 1.5 * self.unit), (middle, y1 + 1.5 * self.unit)], (235, 235, 235), self.unit
            )
            _write(shown, text, x1, y0 - 6 * self.unit, 11.5 * self.unit, (240, 242, 245))
            if row == 0 and not moment.seen:
                _write(shown, "no face", middle + 14 * self.unit, y0 - 6 * self.unit, 9.5 * self.unit, (200, 203, 210))

    def _whisker(self, shown: Picture, y: float, ends: Sequence[float]) -> None:
        """Marks the ends of the interval on a meter."""
        if not np.isfinite(ends).all():
            return
        for width, ink in ((2.6 * self.unit, (12, 14, 19)), (1.2 * self.unit, (235, 235, 235))):
            draw_line(shown, [(ends[0], y), (ends[1], y)], ink, width)
            for x in ends:
                draw_line(shown, [(x, y - 3.5 * self.unit), (x, y + 3.5 * self.unit)], ink, width)

    def _traces(self, shown: Picture, person: int, now: float) -> None:
        x0, y0, x1, y1 = self._window(person)
        trail = np.array(self._trail[person])
        if x1 - x0 <= 30 * self.unit:
            return
        x = x1 - (now - trail[:, 0]) / TRACE_SECONDS * (x1 - x0)
        for row, dimension in enumerate(DIMENSIONS):
            low, high = ((y0 + y1) / 2 - trail[:, 3 + 2 * row + side] * (y1 - y0) / 2 for side in (0, 1))
            draw_band(shown, x, low, high, _rgb(DARK.of(dimension)))
        for row, dimension in enumerate(DIMENSIONS):
            y = (y0 + y1) / 2 - trail[:, 1 + row] * (y1 - y0) / 2
            colour = _rgb(DARK.of(dimension))
            for part in split_at_nan(np.stack((x, y), 1)):
                draw_line(shown, part, colour, 1.4 * self.unit)
            if np.isfinite(y[-1]):
                draw_dot(shown, x[-1], y[-1], 2.8 * self.unit, colour)

    def _point(self, shown: Picture, person: int, moment: Moment) -> None:
        x, y, radius = self._disc()
        trail = np.array([it for it in self._trail[person] if it[0] >= moment.time - TRAIL_SECONDS])
        points = np.stack((x + trail[:, 1] * radius, y - trail[:, 2] * radius), 1)
        colour = self.colours[person]
        for part in split_at_nan(points):
            for at in range(1, len(part)):
                share = 0.25 + 0.55 * at / len(part)
                ink = tuple(round(share * part + (1 - share) * 16) for part in colour)
                draw_line(shown, part[at - 1 : at + 1], ink, 1.8 * self.unit)
        if np.isfinite(points[-1]).all():
            draw_dot(shown, points[-1, 0], points[-1, 1], 5.2 * self.unit, (12, 14, 19))
            draw_dot(shown, points[-1, 0], points[-1, 1], 4.0 * self.unit, colour)


@dataclass(frozen=True)
class _ScaledPen:
    """Draws in coordinates of the frame on a larger picture. top: the first line of the picture in the frame."""

    pen: ImageDraw.ImageDraw
    top: int

    def _at(self, *numbers: float) -> list[float]:
        return [SUPERSAMPLING * (number - self.top * (place % 2)) for place, number in enumerate(numbers)]

    def oval(self, x: float, y: float, radius: float, fill: Any = None, outline: Any = None, width: float = 1) -> None:
        bounds = self._at(x - radius, y - radius, x + radius, y + radius)
        if radius > 0:  # a very small picture has no room for it
            self.pen.ellipse(bounds, fill, outline, max(1, round(width * SUPERSAMPLING)))

    def line(self, ends: Sequence[float], colour: Any, width: float) -> None:
        self.pen.line(self._at(*ends), colour, max(1, round(width * SUPERSAMPLING)))

    def bar(self, bounds: Sequence[float], colour: Any) -> None:
        if bounds[2] > bounds[0]:
            self.pen.rounded_rectangle(self._at(*bounds), SUPERSAMPLING * (bounds[3] - bounds[1]) / 2, colour)

    def text(self, at: Sequence[float], text: str, size: float, colour: Any, anchor: str = "ls") -> None:
        x, y = self._at(*at)
        self.pen.text((x, y), text, colour, _font(round(size * SUPERSAMPLING)), anchor)


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font of the figures."""
    import_matplotlib()
    from matplotlib import font_manager

    there = set(font_manager.get_font_names())
    family = next(font for font in FONTS if font in there)
    return ImageFont.truetype(font_manager.findfont(font_manager.FontProperties(family=[family])), max(6, size))


def _write(shown: Picture, text: str, right: float, base: float, size: float, colour: Colour) -> None:
    """Draws text that ends at `right` into the picture."""
    x1, y1 = round(right), round(base + 0.3 * size)
    x0, y0 = max(0, round(x1 - 0.75 * size * len(text))), max(0, round(y1 - 1.5 * size))
    picture = Image.fromarray(shown[y0:y1, x0:x1])
    ImageDraw.Draw(picture).text((x1 - x0, round(base) - y0), text, colour, _font(round(size)), "rs")
    shown[y0:y1, x0:x1] = np.asarray(picture)


def _ends(moment: Moment, row: int) -> tuple[float, float]:
    """The interval of valence (row 0) or arousal (row 1)."""
    both = ((moment.valence_low, moment.valence_high), (moment.arousal_low, moment.arousal_high))
    return both[row]


def _rgb(colour: str) -> Colour:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
