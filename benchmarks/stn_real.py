"""Measures how well an STN finds the faces of real people.

    python benchmarks/stn_real.py [WEIGHTS] [--data DIR] [--sheets DIR] [--videos N]

WEIGHTS: an STN; default: the shipped one. DIR: has faces/ with boxes.csv, and videos/ with <video>.judge.csv; default:
../shared/data. The pictures are those of people that tools/make_stn.py holds out. Prints a Markdown table and writes
contact sheets. Skips what is absent. A face is missed if the IoU is below 0.1. The target in a crowd is the largest
face, or the annotated face that fits best ("any face"). The last lines say where the edges of the STN's boxes are
relative to the others, in heights of the box: MediaPipe's boxes have other edges.
"""

import argparse
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
from affect.models.stn import SpatialTransformer
from affect.models.theta import box_iou, corners_from_theta, theta_from_corners
from affect.pipeline.features.encoder import STN_FORMAT, check_format
from affect.pipeline.features.stn_init import SHIPPED, init_from
from affect.pipeline.ingest.boxed_pictures import Picture, held_out, read_pictures
from affect.pipeline.ingest.synthetic.video import SyntheticVideo, draw_video
from affect.pipeline.ingest.video.decode import Decoding, decoded
from affect.pipeline.storage.checkpoint import load_weights
from affect.tools.make_stn import HELD_OUT, PURPOSE
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parents[1]
DATA = HERE.parent / "shared" / "data"
SIZE = load("affwild2", []).frames.size
SCENE = (640, 360)
BATCH = 32
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


def locate(stn: SpatialTransformer, group: Group) -> tuple[torch.Tensor, torch.Tensor]:
    """theta [n, 2, 3] and presence [n] of the frames of a group."""
    found = []
    with torch.inference_mode():
        for start in range(0, len(group.frames), BATCH):
            frames = torch.from_numpy(np.stack(group.frames[start : start + BATCH])).permute(0, 3, 1, 2)
            found.append(stn.locate(frames))
    return torch.cat([pair[0] for pair in found]), torch.cat([pair[1] for pair in found]).sigmoid()


def line(group: Group, theta: torch.Tensor, presence: torch.Tensor) -> str:
    """A row of the table."""
    face = torch.tensor([box is not None for box in group.boxes])
    cells = [group.name, str(len(face)), "", "", "", "", ""]
    if face.any():
        iou = overlap(group, theta)[face]
        cells[2:6] = [
            f"{iou.mean():.3f}", f"{(iou >= 0.5).float().mean():.1%}", f"{(iou < 0.1).float().mean():.1%}",
            f"{(presence[face] > 0.5).float().mean():.1%}",
        ]  # fmt: skip
    if not face.all():
        cells[6] = f"{(presence[~face] > 0.5).float().mean():.1%}"
    return "| " + " | ".join(cells) + " |"


def overlap(group: Group, theta: torch.Tensor) -> torch.Tensor:
    """IoU [n] with the target; 0 without one."""
    if group.all_faces:
        pairs = zip(theta, group.all_faces, strict=True)
        return torch.stack([box_iou(one.expand(len(faces), 2, 3), faces).max() for one, faces in pairs])
    true = torch.stack([torch.eye(2, 3) if box is None else box for box in group.boxes])
    return box_iou(theta, true) * torch.tensor([box is not None for box in group.boxes])


def edges(groups: list[tuple[Group, torch.Tensor]]) -> str:
    """Mean distance of the STN's edges from the true ones, in heights of the true box, outwards positive."""
    differences = []
    for group, theta in groups:
        chosen = overlap(group, theta) >= 0.5
        true = [box for box, near in zip(group.boxes, chosen.tolist(), strict=True) if near and box is not None]
        if not true:
            continue
        sizes = torch.tensor([size for size, near in zip(group.sizes, chosen.tolist(), strict=True) if near]).float()
        found = corners_from_theta(theta[chosen], *sizes.unbind(1))
        truth = corners_from_theta(torch.stack(true), *sizes.unbind(1))
        outwards = (found - truth) * torch.tensor([-1.0, -1.0, 1.0, 1.0])
        differences.append(outwards / (truth[:, 3:] - truth[:, 1:2]))
    left, top, right, bottom = torch.cat(differences).mean(0).tolist()
    return f"top {top:+.3f}, bottom {bottom:+.3f}, sides {(left + right) / 2:+.3f}"


def draw_sheet(path: Path, group: Group, theta: torch.Tensor, presence: torch.Tensor) -> None:
    """24 frames, half of them the worst: the true box is green, the STN's red, with IoU and presence."""
    iou = overlap(group, theta)
    bad = torch.where(torch.tensor([box is None for box in group.boxes]), 1 - presence, iou).argsort()[:12]
    even = torch.linspace(0, len(iou) - 1, min(12, len(iou))).long()
    cells = []
    for row in [*even.tolist(), *bad.tolist()]:
        width, height = group.sizes[row]
        scale = 240 / max(width, height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        cell = np.zeros((240, 240, 3), np.uint8)
        picture = cv2.resize(group.frames[row], size, interpolation=cv2.INTER_AREA)
        true = group.boxes[row]
        for box, colour in ((true, (0, 255, 0)), (theta[row], (255, 0, 0))):
            if box is not None:
                x0, y0, x1, y1 = corners_from_theta(box[None], *size)[0].round().int().tolist()
                cv2.rectangle(picture, (x0, y0), (x1, y1), colour, 1)
        cell[: size[1], : size[0]] = picture
        text = f"{presence[row]:.2f}" + ("" if true is None else f" IoU {iou[row]:.2f}")
        cv2.putText(cell, text, (4, 234), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 0), 1)
        cells.append(cell)
    cells += [np.zeros((240, 240, 3), np.uint8)] * (-len(cells) % 6)
    sheet = np.vstack([np.hstack(cells[start : start + 6]) for start in range(0, len(cells), 6)])
    cv2.imwrite(str(path), sheet[:, :, ::-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, nargs="?", default=SHIPPED)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--sheets", type=Path, help="folder for contact sheets; default: none are drawn")
    parser.add_argument("--videos", type=int, default=40, help="frames per video; 0: no videos")
    arguments = parser.parse_args()
    _, metadata = load_weights(arguments.weights)
    check_format(arguments.weights, metadata, STN_FORMAT)
    stn = SpatialTransformer(**metadata["stn"]).eval()
    init_from(stn, arguments.weights)
    print("| pictures | n | mean IoU | IoU >= 0.5 | missed | presence > 0.5 | false |\n|---|---|---|---|---|---|---|")

    def groups() -> Iterator[Group]:
        yield drawn_group()
        if (arguments.data / "faces").is_dir():
            yield from picture_groups(arguments.data / "faces")
        if arguments.videos and (arguments.data / "videos").is_dir():
            yield from video_groups(arguments.data / "videos", arguments.videos)

    seen: list[tuple[Group, torch.Tensor]] = []
    whole = Group("all videos")
    located: list[tuple[torch.Tensor, torch.Tensor]] = []
    for group in groups():
        if not group.frames:
            continue
        theta, presence = locate(stn, group)
        print(line(group, theta, presence), flush=True)
        if arguments.sheets:
            arguments.sheets.mkdir(parents=True, exist_ok=True)
            draw_sheet(
                arguments.sheets / f"{group.name.replace(' ', '-').replace(',', '')}.png", group, theta, presence
            )
        if group.name.startswith("LFW"):
            seen.append((group, theta))
        elif Path(group.name).suffix:
            whole.boxes += group.boxes
            whole.sizes += group.sizes
            located.append((theta, presence))
    if located:
        theta, presence = (torch.cat([pair[k] for pair in located]) for k in (0, 1))
        print(line(whole, theta, presence))
        print(f"\nedges beyond those of MediaPipe: {edges([(whole, theta)])}")
    if seen:
        print(f"edges beyond those of YuNet: {edges(seen)}")


if __name__ == "__main__":
    main()
