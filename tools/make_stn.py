"""Writes models/pretrained/stn.safetensors, the STN of the base model, trained on drawn people and on pictures of real
people.

    python tools/make_stn.py [--faces DIR] [--start WEIGHTS] [--people N] [--epochs N] [--frames N] [--keep DIR]

DIR: a folder of pictures with a boxes.csv (docs/formats.md); default: ../shared/data/faces. Where it is absent, only
drawn people are used. A fifth of the real people and pictures is held out; benchmarks/stn_real.py measures on it.

It draws the people with the code of the demo, but with other seeds, so no demo has the same people. Most videos have
one person, some have two. Frames are seconds apart. Then it runs `audit`, `extract-frames` and `pretrain stn` on these
videos and pictures. It starts from the STN for drawn people (`--start drawn`). This takes about an hour on two cores.
"""

import argparse
import json
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from affect.configs.schema import load
from affect.pipeline.ingest.boxed_pictures import BOXES, COLUMNS, held_out, read_pictures
from affect.pipeline.ingest.synthetic.video import SyntheticVideo, draw_video
from affect.pipeline.progress import Reporter
from affect.pipeline.records import Work
from affect.pipeline.stages.audit import audit
from affect.pipeline.stages.extract_frames import extract_frames
from affect.pipeline.stages.pretrain_stn import pretrain_stn
from affect.pipeline.storage.checkpoint import load_weights, save_weights

OUT = Path(__file__).parent.parent / "models" / "pretrained" / "stn.safetensors"
FACES = Path(__file__).parents[2] / "shared" / "data" / "faces"
FRAMES = 12
SECONDS = 1.5
"""Seconds between two frames of a video."""
PAIRS = 8
"""One video in PAIRS has two people."""
VALIDATION = 10
"""One video in VALIDATION is for validation."""
SEED = 0x5714
"""Not a seed of a demo: those are small numbers."""
HELD_OUT, PURPOSE = 0.2, "make_stn"
"""Share of the real people and pictures that are never trained on (pipeline/ingest/boxed_pictures.py, held_out)."""
SIZES = ((640, 360), (640, 480), (854, 480), (480, 640))


def planned_videos(folder: Path, people: int) -> list[SyntheticVideo]:
    """The videos for this number of people, named by their number."""
    videos, drawn = [], 0
    while drawn < people:
        number = len(videos)
        seed = int(np.random.SeedSequence((SEED, number)).generate_state(1)[0])
        count = 2 if number % PAIRS == PAIRS - 1 else 1
        width, height = SIZES[number % len(SIZES)] if count == 1 else SIZES[0]
        videos.append(
            SyntheticVideo(folder / "videos" / f"{number:04d}.mp4", seed, FRAMES, 1 / SECONDS, count, width, height)
        )
        drawn += count
    return videos


def draw(video: SyntheticVideo) -> None:
    """Draws one video, with its box files and with annotation files without annotations."""
    acted = draw_video(video)
    root, number = video.path.parents[1], int(video.path.stem)
    names = [video.path.stem] if video.people == 1 else [f"{video.path.stem}_left", f"{video.path.stem}_right"]
    split = "Validation_Set" if number % VALIDATION == VALIDATION - 1 else "Train_Set"
    for name, one in zip(names, acted, strict=True):
        rows = [f"{t + 1}," + ",".join(f"{x:.2f}" for x in one.box[t]) for t in range(video.frames) if one.seen[t]]
        for file, lines in (
            (root / "bounding_boxes" / f"{name}.csv", ["frame,x0,y0,x1,y1", *rows]),
            (root / "annotations" / "VA_Set" / split / f"{name}.txt", ["valence,arousal", *["-5,-5"] * video.frames]),
        ):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def training_part(faces: Path, folder: Path) -> Path:
    """A folder with links to the pictures that are not held out, and their boxes."""
    rows = [",".join((*COLUMNS, "label"))]
    for picture in read_pictures(faces):
        if held_out(picture.name, HELD_OUT, PURPOSE):
            continue
        path = folder / picture.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.symlink_to(picture.path.resolve())
        for corners, label in zip(picture.corners.tolist(), picture.labels, strict=True):
            rows.append(",".join([picture.name, *(f"{value:.2f}" for value in corners), label]))
    (folder / BOXES).write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def make(folder: Path, people: int, settings: list[str], faces: Path | None = None, out: Path = OUT) -> None:
    """Draws and trains in a folder and writes `out`. Existing videos are reused. settings: of pretrain_stn."""
    data, work = folder / "data", Work(folder / "work")
    work.root.mkdir(parents=True, exist_ok=True)
    videos = planned_videos(data, people)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(draw, [video for video in videos if not video.path.exists()]))
    if faces is not None:
        settings = [*settings, f"pretrain_stn.pictures=[{json.dumps(str(training_part(faces, folder / 'faces')))}]"]
    config = load("demo", ["pretrain_stn.validation_frames=400", "runtime.workers=0", *settings])
    reporter = Reporter()
    audit(config, data, work, reporter)
    extract_frames(config, data, work, reporter)
    pretrain_stn(config, data, work, reporter)
    state, metadata = load_weights(work.weights("stn"))
    names = ("iou", "iou_80", "presence_auroc", "frames", "training_frames", "training_pictures")
    report = {name: metadata["report"][name] for name in names if name in metadata["report"]}
    description = {"format": metadata["format"], "stn": metadata["stn"], "people": people, "report": report}
    state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    save_weights(out, state, description)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, default=FACES)
    parser.add_argument("--start", default="drawn", help="as pretrain_stn.start")
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--frames", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument(
        "--keep", type=Path, help="folder for the videos and the work folder; default: a temporary folder"
    )
    options = parser.parse_args()
    settings = [
        f"pretrain_stn.start={options.start}", f"pretrain_stn.epochs={options.epochs}", "pretrain_stn.ema=0.998",
        f"pretrain_stn.frames={options.frames}", f"pretrain_stn.batch={options.batch}",
        f"pretrain_stn.learning_rate={options.learning_rate}",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        faces = options.faces if options.faces.is_dir() else None
        make(options.keep or Path(folder), options.people, settings, faces)
    return 0


if __name__ == "__main__":
    sys.exit(main())
