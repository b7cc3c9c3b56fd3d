"""Draws light, hands and shoulders, and random signals over time."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .brush import Brush, Image, mix, oval, smooth
from .faces import Pose
from .identity import Identity

Signal = NDArray[np.float64]
_SIDE = [(1.25, 1.6), (1.75, 2.3), (1.92, 4.2), (1.95, 8.0)]
_BODY = [(-0.42, 1.28), (0, 1.5), (0.42, 1.28), *_SIDE, *((-x, y) for x, y in _SIDE[::-1])]
"""Outline of neckline, shoulders and arms in head units. It ends far below the frame."""


def wander(rng: np.random.Generator, seconds: NDArray[np.float64], period: float) -> Signal:
    """A smooth random signal [n] over most of [-1, 1], from waves with periods of about `period` seconds and more."""
    rate = rng.uniform(0.3, 1.0, 5) / period
    phase, weight = rng.uniform(0, 2 * np.pi, 5), rng.uniform(0.4, 1.0, 5)
    wave = (weight[:, None] * np.sin(2 * np.pi * rate[:, None] * seconds + phase[:, None])).sum(axis=0)
    low, high = wave.min(), wave.max()
    wave = (2 * wave - low - high) / max(high - low, 1e-9)
    return np.clip(wave * rng.uniform(0.75, 1.0) + rng.uniform(-0.15, 0.15), -1, 1)


def tremble(rng: np.random.Generator, n: int) -> Signal:
    """A fast random tremor with a standard deviation of about 1, [n]."""
    return np.convolve(rng.normal(size=n + 2), (0.25, 0.5, 0.25), mode="valid") * 1.6


def spans(rng: np.random.Generator, n: int, count: int, share: float) -> NDArray[np.bool_]:
    """True in `count` spans, each about `share` of n frames long. [n]."""
    inside = np.zeros(n, bool)
    for _ in range(count):
        length = max(2, round(share * n * rng.uniform(0.6, 1.4)))
        start = int(rng.integers(0, max(1, n - length)))
        inside[start : start + length] = True
    return inside


def draw_shoulders(picture: Image, who: Identity, pose: Pose) -> None:
    """Draws neck and clothes below the head, in place."""
    brush, cloth = Brush(picture, pose.x, pose.y, pose.size), who.clothes
    dark, neck = mix(cloth, (0, 0, 0), 0.3), 0.54 * who.width
    if who.top == "hood":
        brush.oval(0, 1.15, neck + 0.42, 0.5, dark)
    brush.fill([(-neck, 0.6), (neck, 0.6), (neck * 1.1, 1.6), (-neck * 1.1, 1.6)], mix(who.skin, who.shadow, 0.7))
    chin = smooth([(neck, 1.02), (0.6 * neck, 1.2), (0, 1.27), (-0.6 * neck, 1.2), (-neck, 1.02)], closed=False)
    brush.fill(np.concatenate([[(-neck, 0.7), (neck, 0.7)], chin]), mix(who.shadow, (40, 16, 20), 0.2))
    brush.fill(smooth(_BODY), cloth)
    if who.top == "stripes":
        for y in np.arange(1.9, 8, 0.32):
            reach = float(np.interp(y, *np.transpose(_SIDE)[::-1])) - 0.09
            brush.line([(-reach, y), (0, y + 0.05), (reach, y)], mix(cloth, (255, 255, 255), 0.6), 0.09)
    elif who.top in ("shirt", "jacket"):
        inside = (236, 234, 228) if who.top == "jacket" else mix(who.skin, who.shadow, 0.5)
        brush.fill([(-0.4, 1.36), (0.4, 1.36), (0.0, 2.3 if who.top == "jacket" else 1.8)], inside)
        for side in (-1, 1):
            lapel = [(side * 0.42, 1.26), (side * 0.62, 1.42), (side * 0.3, 1.95), (side * 0.02, 1.8)]
            brush.fill(lapel, mix(cloth, (255, 255, 255), 0.18) if who.top == "shirt" else dark)
        brush.line([(0, 1.9), (0, 8)], dark, 0.025)
    else:
        brush.line(smooth([(-0.44, 1.29), (0, 1.53), (0.44, 1.29)], closed=False), dark, 0.07)
    for side in (-1, 1):
        brush.line([(side * 1.22, 2.5), (side * 1.3, 8)], dark, 0.03)
    if who.top == "hood":
        for side in (-1, 1):
            brush.line([(side * 0.2, 1.5), (side * 0.24, 2.3)], (236, 234, 228), 0.035)


def draw_hand(picture: Image, who: Identity, pose: Pose, x: float, y: float, side: int) -> None:
    """Draws a hand in front of the face at (x, y) in head units, fingers up, in place."""
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
    """Lighting of a video: gain and tint per frame, and a brightness gradient across the frame."""

    gain: Signal
    tint: NDArray[np.float64]
    slope: NDArray[np.float32]

    def shine(self, picture: Image, t: int) -> Image:
        """Applies the light of frame t. Returns uint8."""
        table = (np.arange(256)[:, None] * self.gain[t] * self.tint).clip(0, 255).astype(np.uint8)
        lit = cv2.LUT(picture, table.reshape(1, 256, 3))
        return np.asarray(cv2.multiply(lit, self.slope, dtype=cv2.CV_8U), np.uint8)


def draw_light(rng: np.random.Generator, seconds: NDArray[np.float64], width: int, height: int) -> Light:
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.3)
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    slope = (1 + strength * (np.cos(angle) * x + np.sin(angle) * y) / 1.4).astype(np.float32)
    return Light(
        gain=rng.uniform(0.78, 1.06) * (1 + 0.12 * wander(rng, seconds, 4.0)),
        tint=np.clip(1 + rng.normal(0, 0.04, 3), 0.88, 1.1),
        slope=np.repeat(slope[..., None], 3, axis=2),
    )
