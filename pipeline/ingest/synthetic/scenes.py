"""What surrounds a face: backgrounds with distractors, light, a hand, shoulders; and the signals a video follows."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .brush import Brush, Colour, Image, mix, oval, smooth
from .faces import Pose
from .identity import Identity

Signal = NDArray[np.float64]
PAN = 48
"""Pixels by which a background is larger than the picture on each side, for the camera to move over."""


def wander(rng: np.random.Generator, seconds: NDArray[np.float64], period: float) -> Signal:
    """A smooth signal in [-1, 1] that crosses most of it: waves of about `period` seconds and slower. [n]."""
    rate = rng.uniform(0.3, 1.0, 5) / period
    phase, weight = rng.uniform(0, 2 * np.pi, 5), rng.uniform(0.4, 1.0, 5)
    wave = (weight[:, None] * np.sin(2 * np.pi * rate[:, None] * seconds + phase[:, None])).sum(axis=0)
    low, high = wave.min(), wave.max()
    wave = (2 * wave - low - high) / max(high - low, 1e-9)
    return np.clip(wave * rng.uniform(0.75, 1.0) + rng.uniform(-0.15, 0.15), -1, 1)


def tremble(rng: np.random.Generator, n: int) -> Signal:
    """Fast unrest of about unit size, [n]."""
    return np.convolve(rng.normal(size=n + 2), (0.25, 0.5, 0.25), mode="valid") * 1.6


def spans(rng: np.random.Generator, n: int, count: int, share: float) -> NDArray[np.bool_]:
    """True in `count` spans, each about `share` of n frames long. [n]."""
    inside = np.zeros(n, bool)
    for _ in range(count):
        length = max(2, round(share * n * rng.uniform(0.6, 1.4)))
        start = int(rng.integers(0, max(1, n - length)))
        inside[start : start + length] = True
    return inside


def draw_background(rng: np.random.Generator, width: int, height: int) -> Image:
    """A still background, uint8 [height + 2 PAN, width + 2 PAN, 3] RGB, distractors included."""
    w, h = width + 2 * PAN, height + 2 * PAN
    kind = ("gradient", "wall", "blur", "shelf", "room")[rng.integers(5)]
    a, b = _tone(rng), _tone(rng)
    down = np.linspace(0, 1, h)[:, None, None]
    image = (np.asarray(a) + (np.asarray(b) - np.asarray(a)) * down + np.zeros((h, w, 3))).astype(np.uint8)
    brush = Brush(image, 0, 0, 1)
    if kind == "wall":
        step = int(rng.integers(18, 50))
        for row, y in enumerate(range(0, h, step)):
            brush.line([(0, y), (w, y)], mix(a, (0, 0, 0), 0.3), 2)
            for x in range((row % 2) * step, w, 2 * step):
                brush.line([(x, y), (x, y + step)], mix(a, (0, 0, 0), 0.3), 2)
    elif kind == "blur":
        small = rng.integers(20, 236, (7, 12, 3), dtype=np.uint8)
        image[:] = cv2.resize(small, (w, h), interpolation=cv2.INTER_CUBIC)
    elif kind == "shelf":
        x = 0
        while x < w:
            thick = int(rng.integers(8, 26))
            for y in range(0, h, 110):
                top = y + 110 - int(rng.integers(60, 100))
                cv2.rectangle(image, (x, top), (x + thick - 2, y + 106), _tone(rng), -1)
            x += thick
    elif kind == "room":
        x, y = rng.uniform(0, 0.6) * w, rng.uniform(0.05, 0.3) * h
        cv2.rectangle(image, (int(x), int(y)), (int(x + 0.3 * w), int(y + 0.45 * h)), (214, 230, 240), -1)
        cv2.rectangle(image, (int(x), int(y)), (int(x + 0.3 * w), int(y + 0.45 * h)), (120, 96, 76), 7)
        brush.fill([(0, 0.85 * h), (w, 0.8 * h), (w, h), (0, h)], mix(b, (40, 30, 20), 0.4))
    _draw_distractors(rng, brush, w, h)
    return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.6, 2.5)), np.uint8)


def _draw_distractors(rng: np.random.Generator, brush: Brush, w: int, h: int) -> None:
    """Balls, lamps and posters, some in the colours and the outline of a face, none with its features."""
    for _ in range(int(rng.integers(0, 5))):
        x, y, r = rng.uniform(0, w), rng.uniform(0, h), rng.uniform(0.04, 0.16) * h
        colour = mix((236, 188, 150), (150, 100, 70), rng.random()) if rng.random() < 0.5 else _tone(rng)
        brush.oval(x, y, r * rng.uniform(0.7, 1.1), r, colour)
        if rng.random() < 0.5:
            brush.oval(x - 0.3 * r, y - 0.3 * r, 0.25 * r, 0.2 * r, mix(colour, (255, 255, 255), 0.5))


def _tone(rng: np.random.Generator) -> Colour:
    base = rng.uniform(30, 225)
    r, g, b = np.clip(base + rng.normal(0, 38, 3), 5, 250)
    return (float(r), float(g), float(b))


def draw_shoulders(picture: Image, who: Identity, pose: Pose) -> None:
    """Neck and clothes under the head, in place."""
    brush = Brush(picture, pose.x, pose.y, pose.size)
    neck = 0.42 * who.width / 0.78
    brush.fill([(-neck, 0.6), (neck, 0.6), (neck * 1.1, 1.5), (-neck * 1.1, 1.5)], mix(who.skin, who.shadow, 0.8))
    body = [
        (-0.42, 1.28),
        (0, 1.5),
        (0.42, 1.28),
        (1.25, 1.6),
        (1.75, 2.3),
        (1.9, 4.2),
        (-1.9, 4.2),
        (-1.75, 2.3),
        (-1.25, 1.6),
    ]
    brush.fill(smooth(body), who.clothes)


def draw_hand(picture: Image, who: Identity, pose: Pose, x: float, y: float, side: int) -> None:
    """A hand before the face at (x, y) in head units, its fingers up, in place."""
    brush = Brush(picture, pose.x + x * pose.size, pose.y + y * pose.size, pose.size)
    edge = mix(who.skin, who.shadow, 0.8)
    brush.fill([(-0.16, 0.3), (0.18, 0.3), (0.3 * side + 0.3, 2.4), (0.3 * side - 0.3, 2.4)], who.clothes)
    for k in range(4):
        tip = (-0.27 + 0.17 * k, -0.52 + 0.08 * abs(k - 1.5))
        root = (-0.2 + 0.13 * k, 0.05)
        brush.line([root, tip], edge, 0.17)
        brush.line([root, tip], who.skin, 0.14)
    brush.line([(0.16 * side, 0.15), (0.4 * side, -0.12)], who.skin, 0.15)
    brush.fill(oval(0, 0.15, 0.29, 0.28), who.skin)


@dataclass(frozen=True)
class Light:
    """How a picture is lit: a gain and a tint over time, and a slope of brightness across it."""

    gain: Signal
    tint: NDArray[np.float64]
    slope: NDArray[np.float32]

    def shine(self, picture: Image, t: int) -> Image:
        """The picture in the light of frame t, uint8 like it."""
        table = (np.arange(256)[:, None] * self.gain[t] * self.tint).clip(0, 255).astype(np.uint8)
        lit = cv2.LUT(picture, table.reshape(1, 256, 3))
        return np.asarray(cv2.multiply(lit, self.slope, dtype=cv2.CV_8U), np.uint8)


def draw_light(rng: np.random.Generator, seconds: NDArray[np.float64], width: int, height: int) -> Light:
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.3)
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    slope = (1 + strength * (np.cos(angle) * x + np.sin(angle) * y) / 1.4).astype(np.float32)
    return Light(
        gain=rng.uniform(0.7, 1.1) * (1 + 0.12 * wander(rng, seconds, 4.0)),
        tint=np.clip(1 + rng.normal(0, 0.05, 3), 0.85, 1.1),
        slope=np.repeat(slope[..., None], 3, axis=2),
    )
