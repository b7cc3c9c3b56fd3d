"""Measures how well an STN finds the faces of real people.

    python benchmarks/stn_real.py [WEIGHTS] [--data DIR] [--sheets DIR] [--videos N]

WEIGHTS: an STN; default: the shipped one. DIR: has faces/ with boxes.csv, and videos/ with <video>.judge.csv; default:
../shared/data. The pictures are those of people that tools/make_stn.py holds out. Prints a Markdown table and writes
contact sheets. Skips what is absent. A face is missed if the IoU is below 0.1. The target in a crowd is the largest
face, or the annotated face that fits best ("any face"). The last lines say where the edges of the STN's boxes are
relative to the others, in heights of the box: MediaPipe's boxes have other edges.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from affect.benchmarks.stn_groups import Group, drawn_group, picture_groups, video_groups
from affect.models.stn import SpatialTransformer
from affect.models.theta import box_iou, corners_from_theta
from affect.pipeline.features.encoder import STN_FORMAT, check_format
from affect.pipeline.features.stn_init import SHIPPED, init_from
from affect.pipeline.storage.checkpoint import load_weights

HERE = Path(__file__).resolve().parents[1]
DATA = HERE.parent / "shared" / "data"
BATCH = 32


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
