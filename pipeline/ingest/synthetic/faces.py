"""Draws the moving parts of a face for an expression, and puts the head into a frame.

Valence curves the mouth and lifts the cheeks. Arousal opens mouth and eyes and raises the brows. With negative valence
and high arousal, dominance selects anger (brows down and in) or fear (inner ends up).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .brush import Brush, Image, mix, oval, smooth
from .head import draw_head
from .identity import CANVAS, CENTRE, UNIT, Identity, face_outline

_T = np.linspace(-1, 1, 21)
_BOW = 1 - _T**2
_WHITE, _DARK = (246, 244, 240), (70, 22, 28)


@dataclass(frozen=True)
class Expression:
    """valence, arousal, dominance in [-1, 1]; smirk, wrinkle (of the nose), blink in [0, 1]; gaze (x, y) in [-1, 1]."""

    valence: float = 0.0
    arousal: float = 0.0
    dominance: float = 0.0
    smirk: float = 0.0
    wrinkle: float = 0.0
    blink: float = 0.0
    gaze: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Pose:
    """Pose of a head in a frame: centre, half height in pixels, roll in degrees, turn (yaw, pitch) in [-1, 1]."""

    x: float
    y: float
    size: float
    roll: float = 0.0
    turn: tuple[float, float] = (0.0, 0.0)


class Portrait:
    """A person to draw in many frames. The static part of the head is drawn once."""

    def __init__(self, who: Identity) -> None:
        self.who = who
        self._head, self._opacity = draw_head(who)
        self._edge = face_outline(who)

    def box(self, pose: Pose) -> tuple[float, float, float, float]:
        """The face box x0, y0, x1, y1 in pixels, half-open: hairline to chin, without ears and hair."""
        points = np.c_[self._edge * UNIT + CENTRE, np.ones(len(self._edge))] @ _matrix(pose).T
        (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
        return float(x0), float(y0), float(x1), float(y1)

    def draw(self, picture: Image, look: Expression, pose: Pose) -> None:
        """Draws the head into a frame, uint8 [h, w, 3] RGB, in place."""
        head, opacity, matrix = self._head.copy(), self._opacity, _matrix(pose)
        draw_features(head, self.who, look, pose.turn)
        while pose.size / UNIT < 0.6 * len(opacity) / CANVAS:
            # Below half size, linear interpolation causes aliasing.
            head, opacity = cv2.pyrDown(head), cv2.pyrDown(opacity)
        matrix[:, :2] *= CANVAS / len(opacity)
        corners = np.array([(0, 0, 1), (1, 0, 1), (0, 1, 1), (1, 1, 1)]) * (len(opacity), len(opacity), 1) @ matrix.T
        h, w = picture.shape[:2]
        x0, y0 = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, (w, h))
        x1, y1 = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1, 0, (w, h))
        if x0 >= x1 or y0 >= y1:
            return
        matrix[:, 2] -= (x0, y0)
        size = (int(x1 - x0), int(y1 - y0))
        head = cv2.warpAffine(head, matrix, size, flags=cv2.INTER_LINEAR)
        behind = 255 - cv2.warpAffine(opacity, matrix, size, flags=cv2.INTER_LINEAR)
        part = picture[y0:y1, x0:x1]
        part[:] = cv2.add(cv2.multiply(part, cv2.merge([behind] * 3), scale=1 / 255), head)


def _matrix(pose: Pose) -> NDArray[np.float64]:
    """The affine matrix [2, 3] from pixels of the portrait to pixels of the frame."""
    scale, angle = pose.size / UNIT, np.deg2rad(pose.roll)
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    x, y = CENTRE
    return np.array([[c, -s, pose.x - c * x + s * y], [s, c, pose.y - s * x - c * y]])


def draw_features(head: Image, who: Identity, look: Expression, turn: tuple[float, float] = (0.0, 0.0)) -> None:
    """Draws brows, eyes, nose, mouth and glasses onto a head of draw_head, in place."""
    x, y = CENTRE[0] + 0.09 * UNIT * turn[0], CENTRE[1] + 0.06 * UNIT * turn[1]
    brush = Brush(head, x, y, UNIT)
    _draw_nose(brush, who, look, turn)
    _draw_mouth(brush, who, look)
    for side in (-1, 1):
        _draw_eye(brush, who, look, side)
        _draw_brow(brush, who, look, side)
    if who.glasses:
        _draw_glasses(brush, who)


def _draw_brow(brush: Brush, who: Identity, look: Expression, side: int) -> None:
    unpleasant, excited = max(0.0, -look.valence), 0.5 + 0.5 * look.arousal
    anger = unpleasant * excited * (0.5 + 0.5 * look.dominance) + 0.4 * look.wrinkle
    worry = unpleasant * (1 - excited + excited * (0.5 - 0.5 * look.dominance))
    lift = 0.13 * look.arousal * (1 - 0.6 * anger) + 0.05 * who.rest_brow + 0.05 * look.smirk * (side > 0)
    inner = -0.40 - lift + 0.15 * anger - 0.14 * worry
    outer = -0.40 - lift - 0.02 * anger + 0.10 * worry
    s = (_T + 1) / 2
    x = who.eye_gap - 0.21 + 0.40 * s + 0.03 * (1 - s) * (worry - anger)
    y = inner + (outer - inner) * s - (0.06 + 0.03 * max(0.0, look.arousal)) * np.sin(np.pi * s)
    half = who.brow * (0.65 - 0.5 * s**3) * 0.8
    top, low = np.stack([side * x, y - half], axis=1), np.stack([side * x, y + half], axis=1)
    brush.fill(np.concatenate([top, low[::-1]]), mix(who.hair, (20, 16, 16), 0.45))


def _draw_eye(brush: Brush, who: Identity, look: Expression, side: int) -> None:
    half = 0.185 * who.eye_size
    opened = np.clip(0.62 + 0.42 * look.arousal + who.rest_eye, 0.1, 1.15) * (1 - look.blink)
    cx, cy, height = side * who.eye_gap, -0.10, 0.15 * who.eye_size * float(opened)
    squeeze = 0.45 * max(0.0, look.valence) + 0.35 * look.wrinkle
    tilt = -who.eye_tilt * _T * side
    x = cx + half * _T
    upper = np.stack([x, cy + tilt - height * _BOW**0.75], axis=1)
    lower = np.stack([x, cy + tilt + 0.62 * height * (1 - squeeze) * _BOW**0.8], axis=1)
    lid = mix(who.skin, who.shadow, 0.75)
    crease = np.stack([x, cy + tilt - (0.055 + 0.8 * height) * _BOW**0.75 - 0.012], axis=1)
    brush.line(crease[2:-2], lid, 0.012)
    if height > 0.012:
        almond = np.concatenate([upper, lower[::-1]])
        x0, y0 = np.floor(almond.min(axis=0) * brush.unit + (brush.x, brush.y)).astype(int) - 2
        x1, y1 = np.ceil(almond.max(axis=0) * brush.unit + (brush.x, brush.y)).astype(int) + 3
        part = brush.image[y0:y1, x0:x1]
        inside, ball = np.zeros(part.shape[:2], np.uint8), np.full(part.shape, _WHITE, np.uint8)
        Brush(inside, brush.x - x0, brush.y - y0, brush.unit).fill(almond, (255, 255, 255))
        eye = Brush(ball, brush.x - x0, brush.y - y0, brush.unit)
        ix, iy = cx + 0.05 * look.gaze[0], cy - 0.015 + 0.03 * look.gaze[1]
        eye.oval(ix, iy, 0.095, 0.095, mix(who.eye, (0, 0, 0), 0.4))
        eye.oval(ix, iy, 0.082, 0.082, who.eye)
        eye.oval(ix, iy, 0.045, 0.045, (14, 12, 14))
        eye.oval(ix - 0.03, iy - 0.035, 0.022, 0.022, (255, 255, 255))
        share = inside[..., None].astype(np.float32) / 255
        part[:] = (part + (ball.astype(np.float32) - part) * share).astype(np.uint8)
    brush.line(lower[3:-3], lid, 0.01)
    brush.line(upper, (34, 24, 24), 0.036 if who.lashes else 0.024)
    if who.lashes:
        end = upper[-1] if side > 0 else upper[0]
        brush.line([end, end + np.array((side * 0.045, -0.035))], (34, 24, 24), 0.024)


def _draw_nose(brush: Brush, who: Identity, look: Expression, turn: tuple[float, float]) -> None:
    shade, w, y = mix(who.skin, who.shadow, 0.95), who.nose, -0.02 + who.nose_length - 0.03 * look.wrinkle
    dx = 0.05 * turn[0]
    ridge = [(-0.03, -0.12), (0.02, y - 0.1), (w * 0.8, y + 0.02), (0, y + 0.05), (-w * 0.8, y + 0.02)]
    ridge.append((-0.07, y - 0.1))
    brush.fill(smooth(np.add(ridge, (dx, 0))), mix(who.skin, who.shadow, 0.22))
    brush.oval(dx, y - 0.06, 0.035, 0.05, mix(who.skin, (255, 255, 255), 0.22))
    wings = [(-w, -0.02), (-w * 0.7, 0.045), (-0.02, 0.06), (w * 0.7, 0.045), (w, -0.02)]
    brush.line(smooth(np.add(wings, (dx, y)), closed=False), shade, 0.02)
    for side in (-1, 1):
        brush.oval(dx + side * w * 0.5, y + 0.03, 0.028, 0.016, mix(who.shadow, (20, 10, 10), 0.55))
        depth = min(1.0, 0.25 * who.age + 0.75 * max(0.0, look.valence) + 0.8 * look.wrinkle)
        if depth > 0.08:
            fold = smooth(
                [(side * (w + 0.06), y + 0.02), (side * (w + 0.16), y + 0.12), (side * (w + 0.21), y + 0.26)], False
            )
            brush.line(fold, mix(who.skin, who.shadow, depth), 0.018)
        if look.wrinkle > 0.2:
            for k in range(3):
                line = [(side * 0.03, -0.16 + 0.06 * k), (side * 0.10, -0.20 + 0.06 * k)]
                brush.line(line, mix(who.skin, who.shadow, look.wrinkle), 0.02)
    if look.arousal + 0.4 * who.age > 0.45 and who.style not in ("bob", "curly", "scarf"):
        for k in range(2):
            line = smooth([(-0.25, -0.62 - 0.08 * k), (0, -0.64 - 0.08 * k), (0.25, -0.62 - 0.08 * k)], False)
            brush.line(line, mix(who.skin, who.shadow, min(1.0, look.arousal * 0.6 + 0.2 * who.age)), 0.012)


def _draw_mouth(brush: Brush, who: Identity, look: Expression) -> None:
    smile = look.valence + who.rest_smile
    gap = 0.30 * max(0.0, 0.16 + 0.84 * look.arousal) * (1 - 0.4 * look.wrinkle)
    half = who.mouth * (1 + 0.2 * max(0.0, smile) - 0.22 * max(0.0, look.arousal) * (1 - abs(smile)))
    x = half * _T
    middle = 0.56 + 0.1 * gap - 0.23 * smile * (_T**2 - 0.45) - 0.13 * look.smirk * np.clip(_T, 0, 1) ** 1.5
    middle -= 0.05 * look.wrinkle * _BOW
    round_ = _BOW**0.7
    top, low = middle - 0.35 * gap * round_, middle + 0.65 * gap * round_
    bow = 1 - 0.35 * np.exp(-((_T / 0.16) ** 2))
    lips_top = top - 0.055 * who.lip * _BOW**0.8 * bow - 0.008
    lips_low = low + 0.075 * who.lip * _BOW**0.8 + 0.008
    brush.fill(_between(x, lips_top, lips_low), who.lips)
    if gap > 0.012:
        brush.fill(_between(x, top, low), _DARK)
        inner = slice(2, -2)
        brush.fill(_between(x[inner], low[inner] - 0.3 * gap * round_[inner], low[inner]), (186, 72, 80))
        brush.fill(_between(x[inner], top[inner], top[inner] + np.minimum(0.08, 0.4 * gap) * round_[inner]), _WHITE)
    else:
        brush.line(np.stack([x, middle], axis=1), mix(who.lips, (40, 10, 14), 0.65), 0.022)
    for side in (-1, 1):
        end = (side * half, float(middle[0 if side < 0 else -1]))
        brush.oval(*end, 0.018, 0.018, mix(who.shadow, (40, 10, 14), 0.4))
    if who.beard in ("full", "moustache", "goatee"):
        y = float(lips_top[10])
        moustache = [(0.3, 0.04), (0.14, -0.09), (0, -0.06), (-0.14, -0.09), (-0.3, 0.04), (-0.12, 0.02), (0.12, 0.02)]
        hairs = smooth(np.add(moustache, (0, y)))
        brush.fill(hairs, who.hair)


def _between(x: NDArray[np.float64], top: NDArray[np.float64], low: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([np.stack([x, top], axis=1), np.stack([x, low], axis=1)[::-1]])


def _draw_glasses(brush: Brush, who: Identity) -> None:
    frame = (40, 36, 44)
    for side in (-1, 1):
        shape = oval(side * who.eye_gap, -0.1, 0.27, 0.24)
        if who.glasses == "square":
            lens = np.array([(-0.27, -0.2), (0.27, -0.2), (0.24, 0.2), (-0.24, 0.2)])
            shape = lens + np.array((side * who.eye_gap, -0.08))
        brush.line(shape, frame, 0.026, closed=True)
        brush.line([(side * (who.eye_gap + 0.27), -0.14), (side * (who.width + 0.02), -0.1)], frame, 0.026)
    brush.line([(-who.eye_gap + 0.26, -0.14), (0, -0.17), (who.eye_gap - 0.26, -0.14)], frame, 0.026)
