"""Pictures of several kinds, and their features: real faces, covered faces, drawings, filtered faces, no people.

tools/add_reference.py fits the reference of the base model to the part `train`, and compares with the people of the
part `calibration`. The benchmark measures on the part `test`.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import torch
from affect.models.theta import theta_from_corners
from affect.pipeline.inference.predictor import Predictor
from affect.pipeline.ingest.boxed_pictures import Picture, held_out, read_pictures
from affect.pipeline.ingest.pictures import read_picture
from affect.pipeline.ingest.synthetic.video import SyntheticVideo, draw_video
from affect.pipeline.ingest.video.decode import Decoding, decoded
from affect.pipeline.ingest.video.live import resize_square
from affect.pipeline.learning.reference import describe
from affect.pipeline.learning.stn.degrade import degrade
from numpy.typing import NDArray
from torch import Tensor

Image = NDArray[np.uint8]
Item = TypeVar("Item")

TEST, CALIBRATION = 0.2, 0.25
"""Share of the people for the test, and of the others for the calibration."""
SMALLEST = 28
"""Faces with fewer pixels are left out."""
DRAWN_SEED = 0x0DD5
FRAMES_PER_DRAWN = 8
FILTERED_SHARE = 6
"""Of the real faces, one in this many is filtered."""
BATCH = 32


class Features(NamedTuple):
    """description: float [n, 2560], see pipeline/learning/reference.py. seen: bool [n], whether affect
    finds a face there, or True for a given box."""

    description: Tensor
    seen: NDArray[np.bool_]


def part_of(name: str) -> str:
    """`train`, `calibration` or `test`; the same for all pictures of a person."""
    if held_out(name, TEST, "unlike test"):
        return "test"
    return "calibration" if held_out(name, CALIBRATION, "unlike calibration") else "train"


def pencil(picture: Image) -> Image:
    """A pencil sketch."""
    grey = cv2.pencilSketch(picture[..., ::-1], sigma_s=60, sigma_r=0.07, shade_factor=0.05)[0]
    return np.repeat(np.asarray(grey, np.uint8)[..., None], 3, 2)


def cartoon(picture: Image) -> Image:
    """Six levels of each colour and black outlines."""
    flat = picture
    for _ in range(5):
        flat = np.asarray(cv2.bilateralFilter(flat, 9, 30, 9), np.uint8)
    grey = cv2.medianBlur(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), 5)
    line = cv2.adaptiveThreshold(grey, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, 9, 4)
    return np.where(np.asarray(line)[..., None] == 0, 0, flat // 43 * 43 + 21).astype(np.uint8)


def edges(picture: Image) -> Image:
    """Thin black lines on white."""
    grey = cv2.GaussianBlur(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (0, 0), 1.2)
    return np.repeat(255 - np.asarray(cv2.Canny(grey, 30, 80), np.uint8)[..., None], 3, 2)


def painting(picture: Image) -> Image:
    """Smoothed surfaces with sharp borders."""
    return np.asarray(cv2.stylization(picture[..., ::-1], sigma_s=60, sigma_r=0.45), np.uint8)[..., ::-1].copy()


FILTERS: dict[str, Callable[[Image], Image]] = {
    "pencil sketch": pencil, "cartoon": cartoon, "line drawing": edges, "painting": painting,
}  # fmt: skip


def encode(predictor: Predictor, pictures: Iterator[Image]) -> Features:
    """The features of the most likely face of each picture, whether it is one or not."""
    return joined(
        [
            _encode_squares(predictor, np.stack([resize_square(picture, predictor.size) for picture in part]))
            for part in _batches(pictures)
        ]
    )


def _encode_squares(predictor: Predictor, squares: NDArray[np.uint8]) -> Features:
    found = predictor.encode(torch.from_numpy(squares).to(predictor.device).permute(0, 3, 1, 2))
    seen = found.presence.float().cpu().numpy() >= predictor.config.predict.face_threshold
    return Features(describe(found.texture, found.feature).cpu(), seen)


def encode_crops(predictor: Predictor, crops: Tensor) -> Features:
    """The features of crops, uint8 or float [n, 3, s, s]."""
    with torch.no_grad(), predictor.compute.autocast():
        feature, _, texture = predictor.net.backbone.read(crops)
    return Features(describe(texture, feature), np.ones(len(crops), bool))


def encode_boxes(predictor: Predictor, faces: Iterator[tuple[Image, NDArray[np.float32]]]) -> Features:
    """The features of faces at known boxes, x0 y0 x1 y1 in pixels."""
    found = []
    for part in _batches(faces):
        crops = []
        for picture, corners in part:
            height, width = picture.shape[:2]
            scaled = torch.from_numpy(corners / np.array([width, height] * 2, np.float32))[None]
            square = torch.from_numpy(resize_square(picture, predictor.size)).permute(2, 0, 1)[None]
            crops.append(predictor.net.stn.sample(square, theta_from_corners(scaled, 1, 1)))
        found.append(encode_crops(predictor, torch.cat(crops)))
    return joined(found)


def real_faces(predictor: Predictor, folder: Path, part: str, rng: np.random.Generator | None = None) -> Features:
    """Single faces of lfw/. rng: changes light, sharpness and compression of some."""
    pictures = (read_picture(it.path) for it in chosen(folder, "lfw", part))
    return encode(predictor, (picture if rng is None else degrade(picture, rng) for picture in pictures))


def filtered_faces(predictor: Predictor, folder: Path, part: str) -> dict[str, Features]:
    """Faces of lfw/ after each filter."""
    some = list(chosen(folder, "lfw", part))[:: FILTERED_SHARE if part == "train" else FILTERED_SHARE // 3]
    return {name: encode(predictor, (change(read_picture(it.path)) for it in some)) for name, change in FILTERS.items()}


def crowd_faces(predictor: Predictor, folder: Path, part: str, label: str) -> Features:
    """Faces of crowd/ with a label, `face` or `masked`, at their boxes."""

    def faces() -> Iterator[tuple[Image, NDArray[np.float32]]]:
        for it in chosen(folder, "crowd", part):
            picture = None
            for corners, own in zip(it.corners, it.labels, strict=True):
                if own == label and corners[2] - corners[0] >= SMALLEST:
                    picture = read_picture(it.path) if picture is None else picture
                    yield picture, corners

    return encode_boxes(predictor, faces())


def no_people(predictor: Predictor, folder: Path, part: str) -> dict[str, Features]:
    """Pictures of none/: of animals, and of things."""
    animals, things = [], []
    for it in chosen(folder, "none", part):
        (animals if it.path.name.startswith(ANIMALS) else things).append(it.path)
    return {
        name: encode(predictor, (read_picture(path) for path in paths))
        for name, paths in (("animal", animals), ("thing", things))
    }


ANIMALS = (
    "Bird", "Cat-", "Chipmunk", "Crow-", "Dog-", "Ferret", "Goat", "Horse", "Lamb", "Lion", "Meerkat", "Monkey",
    "Opossum", "Penguins", "Pig", "Scared-cat", "Seal", "Wolf",
)  # fmt: skip


def drawn_people(predictor: Predictor, folder: Path, part: str, people: int) -> list[Features]:
    """The frames of drawn people; each part has its own."""
    found = []
    for number in range(people):
        seed = int(np.random.SeedSequence((DRAWN_SEED, len(part), number)).generate_state(1)[0])
        path = folder / f"{part}_{number:03d}.mp4"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            draw_video(SyntheticVideo(path, seed, FRAMES_PER_DRAWN, 1.0, 1, 320, 240))
        found.append(encode_video(predictor, path, FRAMES_PER_DRAWN))
    return found


def encode_video(predictor: Predictor, path: Path, frames: int) -> Features:
    """About this many evenly spaced frames of a video."""

    def read(decoding: Decoding) -> Features:
        step = max(1, (decoding.facts.frames or frames) // frames)
        chosen = ((batch, np.flatnonzero(batch.index % step == 0)) for batch in decoding)
        return joined([_encode_squares(predictor, batch.pixels[rows]) for batch, rows in chosen if len(rows)])

    return decoded(path, predictor.size, read, batch=BATCH, deadline=predictor.config.runtime.decode_seconds)


def joined(parts: Sequence[Features]) -> Features:
    return Features(torch.cat([it.description for it in parts]), np.concatenate([it.seen for it in parts]))


def _batches(items: Iterator[Item]) -> Iterator[list[Item]]:
    while part := list(islice(items, BATCH)):
        yield part


def chosen(folder: Path, kind: str, part: str) -> Iterator[Picture]:
    yield from (it for it in read_pictures(folder) if it.name.startswith(f"{kind}/") and part_of(it.name) == part)
