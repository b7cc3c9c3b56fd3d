"""What spoils a picture of a face: things in front of it, poor light, compression, blur."""

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

SKIN = ((236, 188, 150), (214, 160, 118), (172, 116, 78), (120, 78, 52), (90, 60, 45))
SHARES = {"jpeg": 0.35, "small": 0.2, "motion": 0.08, "gamma": 0.3, "dim": 0.1}
"""Share of the pictures with each change."""


def cover_face(pixels: Image, theta: NDArray[np.float64], rng: np.random.Generator) -> None:
    """Draws a bar, a disc or fingers over a part of the face, in place. theta: [2, 3]."""
    side = pixels.shape[0]
    colour = np.array(SKIN[int(rng.integers(len(SKIN)))]) if rng.random() < 0.5 else rng.integers(0, 256, 3)
    fill = [float(c) for c in np.clip(colour + rng.normal(0, 12, 3), 0, 255)]

    def at(x: float, y: float) -> tuple[int, int]:
        place = (theta[:, :2] @ [x, y] + theta[:, 2] + 1) / 2 * side
        return int(place[0]), int(place[1])

    width = np.linalg.norm(theta[:, 0]) * side / 2
    kind = rng.integers(3)
    if kind == 0:
        edge = rng.choice([-1.0, 1.0]) * rng.uniform(0.6, 1.2)
        thick = max(1, int(width * rng.uniform(0.2, 0.6)))
        cv2.line(pixels, at(edge, rng.uniform(-1.3, 1.3)), at(edge * 0.4, rng.uniform(-1.3, 1.6)), fill, thick)
    elif kind == 1:
        place = at(rng.uniform(-0.9, 0.9), rng.uniform(0.2, 1.0))
        cv2.circle(pixels, place, max(1, int(width * rng.uniform(0.15, 0.45))), fill, -1, cv2.LINE_AA)
    else:
        x, thick = rng.uniform(-0.8, 0.4), max(1, int(width * rng.uniform(0.12, 0.25)))
        lean = rng.uniform(-0.4, 0.4)
        for finger in range(int(rng.integers(2, 5))):
            start, stop = at(x + 0.28 * finger, 1.6), at(x + 0.28 * finger + lean, rng.uniform(-0.1, 0.6))
            cv2.line(pixels, start, stop, fill, thick, cv2.LINE_AA)


def degrade(pixels: Image, rng: np.random.Generator) -> Image:
    """The picture, uint8 [h, w, 3], in other light, through a worse lens, and compressed; often unchanged."""
    chosen = {name: rng.random() < share for name, share in SHARES.items()}
    height, width = pixels.shape[:2]
    if chosen["gamma"] or chosen["dim"]:
        levels = (np.arange(256) / 255) ** np.exp(rng.uniform(-0.7, 0.7) * chosen["gamma"])
        levels = levels * (rng.uniform(0.12, 0.5) if chosen["dim"] else 1.0)
        pixels = np.asarray(cv2.LUT(pixels, (255 * levels).round().astype(np.uint8)), np.uint8)
    if chosen["small"]:
        share = rng.uniform(0.25, 0.8)
        few = (max(1, int(width * share)), max(1, int(height * share)))
        small = cv2.resize(pixels, few, interpolation=cv2.INTER_AREA)
        pixels = np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    if chosen["motion"]:
        length = int(rng.integers(3, 9))
        kernel = np.zeros((length, length), np.float32)
        end = (length - 1, int(rng.integers(length)))
        cv2.line(kernel, (0, length - 1 - end[1]), end, 1.0)
        pixels = np.asarray(cv2.filter2D(pixels, -1, kernel / kernel.sum()), np.uint8)
    if chosen["jpeg"]:
        encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(12, 70))])[1]
        pixels = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
    return pixels
