"""Groups of frames with known faces, on which benchmarks/stn_real.py measures an STN."""

import csv
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from affect.configs.schema import load
from affect.models.theta import theta_from_corners
from affect.pipeline.ingest.boxed_pictures import Picture, held_out, read_pictures
from affect.pipeline.ingest.synthetic.video import SyntheticVideo, draw_video
from affect.pipeline.ingest.video.decode import Decoding, decoded
from affect.tools.make_stn import HELD_OUT, PURPOSE
from numpy.typing import NDArray

SIZE = load("affwild2", []).frames.size
SCENE = (640, 360)
SMALLEST, LARGEST = 0.1, 0.85
"""Height of a placed face, as a fraction of the scene."""


@dataclass
class Group:
    """Frames of one kind. frames: uint8 [size, size, 3] RGB each. boxes: theta [2, 3] of the target, None if no face is
    in the frame. sizes: width and height of each picture before it became square. all_faces: theta [k, 2, 3] of each
    frame, if any of its faces will do."""

    name: str
    frames: list[NDArray[np.uint8]] = field(default_factory=list)
    boxes: list[torch.Tensor | None] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    all_faces: list[torch.Tensor] = field(default_factory=list)

    def add(self, picture: NDArray[np.uint8], corners: NDArray[np.float32] | None) -> None:
        height, width = picture.shape[:2]
        self.frames.append(np.asarray(cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_AREA), np.uint8))
        self.boxes.append(
            None if corners is None else theta_from_corners(torch.from_numpy(corners)[None].float(), width, height)[0]
        )
        self.sizes.append((width, height))


def read_rgb(path: Path) -> NDArray[np.uint8]:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if picture is None:
        raise SystemExit(f"{path} is not a picture")
    return np.asarray(picture, np.uint8)


def largest(picture: Picture) -> int:
    return int((picture.corners[:, 2:] - picture.corners[:, :2]).prod(1).argmax())


def picture_groups(folder: Path) -> Iterator[Group]:
    """Held-out pictures as they are, and held-out faces placed in held-out scenes."""
    rng = np.random.default_rng(1)
    pictures = [item for item in read_pictures(folder) if held_out(item.name, HELD_OUT, PURPOSE)]
    lone = [item for item in pictures if item.name.startswith("lfw/") and len(item.corners) == 1]
    empty = [item for item in pictures if not len(item.corners)]
    group = Group("LFW, one face")
    for item in lone:
        group.add(read_rgb(item.path), item.corners[0])
    yield group
    if lone and empty:
        group = Group("LFW, placed in a scene")
        for item in lone:
            group.add(*place(item, empty[rng.integers(len(empty))], rng))
        yield group
    for name, wanted in (("crowd, largest face unmasked", "face"), ("crowd, largest face masked", "masked")):
        group = Group(name)
        for item in pictures:
            if item.name.startswith("crowd/") and item.labels[largest(item)] == wanted:
                group.add(read_rgb(item.path), item.corners[largest(item)])
        yield group
    group = Group("crowd, any face")
    for item in pictures:
        if item.name.startswith("crowd/"):
            pixels = read_rgb(item.path)
            group.add(pixels, item.corners[largest(item)])
            height, width = pixels.shape[:2]
            group.all_faces.append(theta_from_corners(torch.from_numpy(item.corners), width, height))
    yield group
    group = Group("no person")
    for item in empty:
        group.add(read_rgb(item.path), None)
    yield group


def place(item: Picture, scene: Picture, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The whole picture at a random size and place in a scene of 640 x 360. What leaves the scene is cut off, but
    the face stays inside."""
    width, height = SCENE
    face = item.corners[0]
    share = np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST)))
    scale = share * height / (face[3] - face[1])
    source = read_rgb(item.path)
    small = cv2.resize(
        source, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    scaled = face * scale
    left = rng.uniform(-scaled[0], width - scaled[2])
    top = rng.uniform(-scaled[1], height - scaled[3])
    moved = np.array([[1, 0, left], [0, 1, top]], np.float32)
    canvas = np.asarray(cv2.resize(read_rgb(scene.path), SCENE, interpolation=cv2.INTER_AREA), np.uint8)
    cv2.warpAffine(small, moved, SCENE, canvas, cv2.INTER_LINEAR, cv2.BORDER_TRANSPARENT)
    return canvas, (scaled + np.array([left, top, left, top])).astype(np.float32)


def video_groups(folder: Path, frames: int) -> Iterator[Group]:
    """About `frames` frames of each video with boxes of the judge (MediaPipe)."""
    for path in sorted(folder.glob("*.judge.csv")):
        video = path.with_suffix("").with_suffix("")
        with path.open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        boxes = {
            int(row["frame"]): np.array([float(row[c]) for c in ("x0", "y0", "x1", "y1")], np.float32)
            for row in rows if row["x0"]
        }  # fmt: skip
        if not video.is_file() or not boxes:
            continue

        def read(decoding: Decoding) -> Any:
            batches = list(decoding)
            return (
                np.concatenate([it.pixels for it in batches]), np.concatenate([it.index for it in batches]),
                (decoding.facts.width, decoding.facts.height),
            )  # fmt: skip

        pixels, index, size = decoded(video, SIZE, read)
        group = Group(video.name)
        known = [row for row, frame in enumerate(index.tolist()) if frame in boxes]
        for row in np.array(known)[np.linspace(0, len(known) - 1, min(frames, len(known))).astype(int)]:
            group.frames.append(pixels[row])
            group.boxes.append(theta_from_corners(torch.from_numpy(boxes[int(index[row])])[None], *size)[0])
            group.sizes.append(size)
        yield group


def drawn_group() -> Group:
    """People drawn from seeds that no training has."""
    group = Group("drawn people")
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(20):
            video = SyntheticVideo(Path(folder) / f"{seed}.mp4", 99_000 + seed, 10, 0.5, 1, 640, 360)
            acted = draw_video(video)[0]
            pixels = decoded(video.path, SIZE, lambda decoding: np.concatenate([it.pixels for it in decoding]))
            group.frames += list(pixels)
            for corners, seen in zip(acted.box, acted.seen, strict=True):
                box = theta_from_corners(torch.from_numpy(corners)[None].float(), 640, 360)[0]
                group.boxes.append(box if seen else None)
                group.sizes.append((640, 360))
    return group
