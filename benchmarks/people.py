"""Counts how often two people in one video are swapped.

    python benchmarks/people.py [DATA RUN [VIDEO…]]

Tracks the people in each video of DATA with two people (default: the demo and its model), and compares the boxes with
the annotated ones. Prints for each annotated person the mean IoU with the true box, over the frames where both exist,
and the number of frames in which the box was nearer to the other person (swapped).
"""

import sys
from pathlib import Path

import affect
import numpy as np
from affect.pipeline.ingest.boxes import read_boxes
from affect.pipeline.ingest.catalog import find_catalog


def main(data: Path, run: Path, names: list[str]) -> None:
    model = affect.load(run)
    catalog = find_catalog(data)
    frames = swapped = 0
    for video in catalog.videos:
        sides = {subject.side or "": subject for subject in catalog.subjects if subject.video == video.name}
        if not {"left", "right"} & set(sides) or (names and video.name not in names):
            continue
        people = model.predict_people(video.path, people=2)
        print(f"{video.name}: {len(people)} people found")
        for side, subject in sides.items():
            own = people[-1] if side == "right" else people[0]
            other = people[0] if side == "right" else people[-1]
            if subject.boxes is None or len(people) < 2:
                continue
            boxes = read_boxes(subject.boxes)
            known = np.isin(boxes.frame, own.frame[own.seen])
            rows = np.searchsorted(own.frame, boxes.frame[known])
            truth = boxes.corners[known]
            near, far = (iou(trace.box[rows], truth) for trace in (own, other))
            frames, swapped = frames + len(rows), swapped + int((far > near).sum())
            print(f"  {side or 'left'}: IoU {near.mean():.3f}, {int((far > near).sum())} of {len(rows)} frames swapped")
    print(f"all: {swapped} of {frames} frames swapped")


def iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The IoU of boxes [n, 4] with boxes [n, 4], pair by pair."""
    sides = (np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])).clip(0)
    areas = [(box[:, 2:] - box[:, :2]).prod(1) for box in (one, other)]
    return sides.prod(1) / (areas[0] + areas[1] - sides.prod(1))


if __name__ == "__main__":
    folders = [Path(argument) for argument in sys.argv[1:3]] or [Path("demo"), Path("work/train/default")]
    if all(folder.is_dir() for folder in folders):
        main(folders[0], folders[1], sys.argv[3:])
    else:
        print("There is no demo or no model. Run `make all` first, or give DATA and RUN.")
