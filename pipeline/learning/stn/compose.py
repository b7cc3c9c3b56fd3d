"""Composes training pictures for the STN from pictures with face boxes: faces of all sizes at all places.

In a portrait the face is in the middle. A network trained on portraits learns the middle, not the face. So faces are
cut out or kept with their surroundings, scaled, rotated and pasted into pictures without people, sometimes several into
one, and sometimes a piece without a face, so that the edge of a piece is no sign of a face.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ...ingest.boxed_pictures import Picture
from ...ingest.synthetic.backgrounds import draw_background
from ...records import Problem
from .degrade import cover_face, degrade

MAX_FACES = 12
"""Faces of a composed picture that are kept track of; a crowd with more shows only the largest."""
MAX_SIDE = 512
"""Longer pictures are stored smaller."""
MIN_CUT = 24
"""Faces of fewer pixels in height are not cut out."""
DRAWN_BACKGROUNDS = 150
ASPECT = 16 / 9
"""Largest ratio of the sides of a scene before it becomes square; the smallest is its inverse."""
MAX_ROLL = 0.6
"""Largest rotation of a pasted piece in radians."""
SMALLEST, LARGEST = 0.08, 1.0
"""Height of the first face, as a fraction of the scene."""

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Source:
    """A picture in memory. encoded: the bytes of a JPEG or PNG file. corners: float32 [k, 4] in its pixels."""

    encoded: bytes
    corners: NDArray[np.float32]

    def decode(self) -> Image:
        """uint8 [h, w, 3] RGB."""
        pixels = cv2.imdecode(np.frombuffer(self.encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
        assert pixels is not None, "load_sources decoded it before"
        return np.asarray(pixels, np.uint8)


def load_sources(pictures: Sequence[Picture]) -> tuple[list[Source], list[Problem]]:
    """The pictures in memory, and a Problem for each that cannot be read or whose box lies outside."""
    sources: list[Source] = []
    problems: list[Problem] = []
    for picture in pictures:
        pixels = cv2.imread(str(picture.path), cv2.IMREAD_COLOR_RGB)
        if pixels is None:
            problems.append(
                Problem("damaged", picture.name, f"{picture.path}: is not a readable picture", "Restore or delete it.")
            )
            continue
        height, width = pixels.shape[:2]
        inside = picture.corners.clip(0, np.array([width, height] * 2, np.float32))
        if (inside[:, 2:] - inside[:, :2] < 1).any():
            problem = f"{picture.path}: has a box outside its {width} x {height} pixels"
            problems.append(Problem("refused", picture.name, problem, "Correct its rows in boxes.csv."))
            continue
        scale = min(1.0, MAX_SIDE / max(width, height))
        if scale < 1:
            pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        encoded = picture.path.read_bytes() if scale == 1 else _encode(np.asarray(pixels, np.uint8))
        sources.append(Source(encoded, inside * np.float32(scale)))
    return sources, problems


class Composer:
    """Draws composed pictures, side x side, from `count` sources and drawn backgrounds. The state of the generator
    decides what is drawn."""

    def __init__(self, sources: Sequence[Source], side: int, seed: int) -> None:
        rng = np.random.default_rng((seed, 0xC0135))
        self.side, self.count = side, len(sources)
        self.faces = [source for source in sources if len(source.corners)]
        self.empty = [source for source in sources if not len(source.corners)]
        none = np.zeros((0, 4), np.float32)
        self.empty += [Source(_encode(draw_background(rng, 400, 225)), none) for _ in range(DRAWN_BACKGROUNDS)]

    def draw(self, rng: np.random.Generator) -> tuple[Image, NDArray[np.float32]]:
        """A picture, uint8 [side, side, 3] RGB, and the thetas of its faces, float32 [k, 2, 3]."""
        scene = _Scene(self.side, np.exp(rng.uniform(-1, 1) * np.log(ASPECT)))
        scene.fill(self._pick(rng, self.empty), rng)
        count = int(rng.choice(5, p=(0.16, 0.54, 0.17, 0.08, 0.05))) if self.faces else 0
        for number in range(count):
            source = self._pick(rng, self.faces)
            if number == 0 and rng.random() < 0.35:
                scene.fill(source, rng)
            else:
                scene.paste(source, rng, first=number == 0)
        for _ in range(int(rng.choice(3, p=(0.65, 0.25, 0.1)))):
            scene.paste(self._pick(rng, self.empty), rng, first=False)
        if scene.faces and rng.random() < 0.25:
            cover_face(scene.pixels, scene.faces[int(rng.integers(len(scene.faces)))], rng)
        faces = sorted(scene.faces, key=lambda theta: -abs(np.linalg.det(theta[:, :2])))[:MAX_FACES]
        return degrade(scene.pixels, rng), np.array(faces, np.float32).reshape(-1, 2, 3)

    @staticmethod
    def _pick(rng: np.random.Generator, sources: list[Source]) -> Source:
        return sources[int(rng.integers(len(sources)))]


class _Scene:
    """A picture in the making. faces: thetas of the faces in it."""

    def __init__(self, side: int, aspect: float) -> None:
        self.pixels = np.zeros((side, side, 3), np.uint8)
        self.faces: list[NDArray[np.float64]] = []
        self.side = side
        self.wide, self.high = side * aspect**0.5, side * aspect**-0.5
        """Sides of the scene before it becomes square, in pixels."""

    def fill(self, source: Source, rng: np.random.Generator) -> None:
        """Covers the scene with a part of the picture; a picture with faces keeps its largest in the scene."""
        pixels = source.decode()
        height, width = pixels.shape[:2]
        fit = max(self.wide / width, self.high / height)
        zoom = fit * np.exp(rng.uniform(0, 0.7))
        room = np.array([zoom * width - self.wide, zoom * height - self.high])
        low, high = np.zeros(2), room
        if len(source.corners):
            box = source.corners[_areas(source.corners).argmax()]
            zoom = min(zoom, max(fit, 0.97 * min(self.wide / (box[2] - box[0]), self.high / (box[3] - box[1]))))
            room = np.array([zoom * width - self.wide, zoom * height - self.high])
            low = np.clip(zoom * box[2:] - (self.wide, self.high), 0, room)
            high = np.clip(zoom * box[:2], low, room)
        shift = -(low + (high - low) * rng.random(2))
        self.faces = []
        self._warp(pixels, _affine(zoom, 0.0, rng.random() < 0.5, (width, height)), shift, None)
        self._add(source, range(len(source.corners)), self._last)

    def paste(self, source: Source, rng: np.random.Generator, *, first: bool) -> None:
        """Pastes the picture or a piece of it. Does nothing where it would cover faces that are there already."""
        pixels = _relit(source.decode(), rng)
        height, width = pixels.shape[:2]
        large = [k for k, box in enumerate(source.corners) if box[3] - box[1] >= MIN_CUT]
        chosen = int(rng.choice(large)) if large else int(_areas(source.corners).argmax()) if len(source.corners) else 0
        box = source.corners[chosen] if len(source.corners) else _anywhere(rng, width, height)
        whole = len(source.corners) > 0 and (chosen not in large or rng.random() < (0.55 if first else 0.2))
        mask, support = _mask((width, height), box, rng, whole=whole)
        largest = LARGEST if first else 0.45
        share = np.exp(rng.uniform(np.log(SMALLEST), np.log(largest)))
        zoom = min(share * self.high, 0.97 * self.wide) / (box[3] - box[1])
        roll = rng.uniform(-MAX_ROLL, MAX_ROLL) * (rng.random() < 0.6)
        affine = _affine(zoom, roll, rng.random() < 0.5, (width, height))
        half = 0.5 * zoom * (box[2:] - box[:2])
        margin = half * (0.95 if rng.random() < 0.9 else 0.0)  # one in ten may leave the scene
        low, high = np.minimum(margin, (self.wide / 2, self.high / 2)), np.array([self.wide, self.high]) - margin
        place = low + np.maximum(high - low, 0) * rng.random(2)
        shift = place - affine @ [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, 1]
        if self._would_cover(affine, shift, support):
            return
        self._warp(pixels, affine, shift, mask)
        self._add(source, range(len(source.corners)) if whole else [chosen] if len(source.corners) else [], self._last)

    def _matrix(self, affine: NDArray[np.float64], shift: NDArray[np.float64]) -> NDArray[np.float64]:
        """From pixels of the source to pixels of the square canvas."""
        moved = affine.copy()
        moved[:, 2] += shift
        return moved * np.array([[self.side / self.wide], [self.side / self.high]])

    def _would_cover(
        self, affine: NDArray[np.float64], shift: NDArray[np.float64], support: tuple[float, float, float, float]
    ) -> bool:
        low, high = _extent(self._matrix(affine, shift), support)
        for theta in self.faces:
            reach = np.hypot(theta[:, 0], theta[:, 1])
            start, stop = ((theta[:, 2] + sign * reach + 1) / 2 * self.side for sign in (-1, 1))
            overlap = (np.minimum(high, stop) - np.maximum(low, start)).clip(0).prod()
            if overlap > 0.08 * (stop - start).prod():
                return True
        return False

    def _warp(self, pixels: Image, affine: NDArray[np.float64], shift: NDArray[np.float64], mask: Image | None) -> None:
        matrix = self._last = self._matrix(affine, shift)
        height, width = pixels.shape[:2]
        low, high = _extent(matrix, (0, 0, width, height))
        x0, y0 = np.floor(low).clip(0, self.side - 1).astype(int)
        x1, y1 = np.ceil(high).clip(1, self.side).astype(int)
        if x1 <= x0 or y1 <= y0:
            return
        shrink = 2.0 ** np.floor(np.log2(max(1.0, 1 / np.sqrt(abs(np.linalg.det(matrix[:, :2]))))))
        if shrink > 1:  # warpAffine does not average
            size = (max(1, round(width / shrink)), max(1, round(height / shrink)))
            pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
            mask = None if mask is None else np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_AREA), np.uint8)
            matrix = matrix * np.array([width / size[0], height / size[1], 1.0])
        moved = matrix - np.array([[0, 0, x0], [0, 0, y0]])
        # OpenCV's coordinates are those of pixel centres.
        moved[:, 2] += moved[:, :2].sum(1) / 2 - 0.5
        size = (int(x1 - x0), int(y1 - y0))
        drawn = cv2.warpAffine(pixels, moved, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        if mask is None:
            self.pixels[y0:y1, x0:x1] = drawn
            return
        weight = cv2.warpAffine(mask, moved, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        weight = weight[:, :, None].astype(np.float32) / 255
        below = self.pixels[y0:y1, x0:x1]
        self.pixels[y0:y1, x0:x1] = (below + (drawn.astype(np.float32) - below) * weight).astype(np.uint8)

    def _add(self, source: Source, rows: Sequence[int], matrix: NDArray[np.float64]) -> None:
        for x0, y0, x1, y1 in source.corners[list(rows)].astype(np.float64).tolist():
            box = np.array([[(x1 - x0) / 2, 0, (x0 + x1) / 2], [0, (y1 - y0) / 2, (y0 + y1) / 2], [0, 0, 1]])
            theta = matrix @ box * 2 / self.side
            theta[:, 2] -= 1
            theta[:, 0] *= np.sign(np.linalg.det(theta[:, :2]))  # a box and its mirror image are equal
            self.faces.append(theta)


def _affine(zoom: float, roll: float, mirrored: bool, size: tuple[int, int]) -> NDArray[np.float64]:
    cos, sin = zoom * np.cos(roll), zoom * np.sin(roll)
    turn = np.array([[cos, -sin, 0.0], [sin, cos, 0.0]])
    if mirrored:
        turn[:, 2] = turn[:, 0] * size[0]
        turn[:, 0] *= -1
    return turn


def _extent(
    matrix: NDArray[np.float64], box: tuple[float, float, float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x0, y0, x1, y1 = box
    points = matrix @ np.array([[x0, x1, x1, x0], [y0, y0, y1, y1], [1, 1, 1, 1]])
    return points.min(1), points.max(1)


def _mask(
    size: tuple[int, int], box: NDArray[np.float32], rng: np.random.Generator, *, whole: bool
) -> tuple[Image, tuple[float, float, float, float]]:
    """The opacity of each pixel of a piece, uint8 [h, w], and the box of what is opaque: the whole picture, a head, or
    a head with shoulders. The edges are sharp or soft."""
    width, height = size
    x0, y0, x1, y1 = box.tolist()
    w, h = x1 - x0, y1 - y0
    mask = np.full((height, width), 255 if whole else 0, np.uint8)
    soft = max(1, int(h * rng.uniform(0.02, 0.15))) if rng.random() < 0.6 else 0
    if whole:
        if soft:
            mask[:soft], mask[-soft:], mask[:, :soft], mask[:, -soft:] = 0, 0, 0, 0
        support = (0.0, 0.0, float(width), float(height))
    else:
        wide, high = rng.uniform(1.25, 1.75, 2)
        centre, axes = ((x0 + x1) / 2, y0 + 0.42 * h), (wide * w / 2, high * h / 2)
        cv2.ellipse(mask, (centre, (2 * axes[0], 2 * axes[1]), 0), 255, -1)
        support = (centre[0] - axes[0], centre[1] - axes[1], centre[0] + axes[0], centre[1] + axes[1])
        if rng.random() < 0.5:
            across, deep = rng.uniform(1.8, 3.0) * w, rng.uniform(1.4, 2.4) * h
            cv2.ellipse(mask, (((x0 + x1) / 2, y1 + 0.62 * deep), (across, deep), 0), 255, -1)
            middle = (x0 + x1) / 2
            support = (
                min(support[0], middle - across / 2), support[1], max(support[2], middle + across / 2), float(height),
            )  # fmt: skip
    if soft:
        mask = np.asarray(cv2.blur(mask, (2 * soft + 1, 2 * soft + 1), borderType=cv2.BORDER_REPLICATE), np.uint8)
    return mask, support


def _anywhere(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float32]:
    """A box with the proportions of a face anywhere in a picture without one."""
    h = rng.uniform(0.25, 0.6) * min(width, height)
    w = h * rng.uniform(0.65, 0.9)
    x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
    return np.array([x, y, x + w, y + h], np.float32)


def _relit(pixels: Image, rng: np.random.Generator) -> Image:
    if rng.random() < 0.5:
        return pixels
    return np.asarray(cv2.convertScaleAbs(pixels, alpha=rng.uniform(0.45, 1.3), beta=rng.uniform(-25, 25)), np.uint8)


def _areas(corners: NDArray[np.float32]) -> NDArray[np.float32]:
    return (corners[:, 2:] - corners[:, :2]).prod(1)


def _encode(pixels: Image) -> bytes:
    encoded = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    return encoded.tobytes()
