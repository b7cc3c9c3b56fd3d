"""Makes weights/stn.safetensors, what `pretrain stn` starts from: an STN that has seen 800 drawn people.

    python weights/make_stn.py [--people N] [--epochs N] [--keep DIR]

Draws them by the code of the demo, but by other seeds, so that nobody of any demo is among them: most alone in a
picture, some in pairs; pictures seconds apart, not frames of one movement. Then it runs `audit`, `extract-frames` and
`pretrain stn` on them, from random weights, and prints what the last one says. One core takes about an hour.
"""

import argparse
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from affect.configs.schema import load
from affect.pipeline.ingest.synthetic.film import Film, draw_film
from affect.pipeline.progress import Talk
from affect.pipeline.records import Work
from affect.pipeline.stages.audit import audit
from affect.pipeline.stages.extract_frames import extract_frames
from affect.pipeline.stages.pretrain_stn import pretrain_stn
from affect.pipeline.storage.checkpoint import load_weights, save_weights

HERE = Path(__file__).parent
FRAMES = 12
SECONDS = 1.5
"""Between two pictures of a film."""
PAIRS = 8
"""One film in so many has two people."""
JUDGED = 10
"""One film in so many is for validation."""
SEED = 0x5714
"""The demo's seeds are small numbers."""
SIZES = ((640, 360), (640, 480), (854, 480), (480, 640))


def films(folder: Path, people: int) -> list[Film]:
    """As many films as it takes, named by their number."""
    found, drawn = [], 0
    while drawn < people:
        number = len(found)
        seed = int(np.random.SeedSequence((SEED, number)).generate_state(1)[0])
        both = 2 if number % PAIRS == PAIRS - 1 else 1
        width, height = SIZES[number % len(SIZES)] if both == 1 else SIZES[0]
        found.append(Film(folder / "videos" / f"{number:04d}.mp4", seed, FRAMES, 1 / SECONDS, both, width, height))
        drawn += both
    return found


def draw(film: Film) -> None:
    """One film, with its box files and annotations that say nothing."""
    acted = draw_film(film)
    root, number = film.path.parents[1], int(film.path.stem)
    names = [film.path.stem] if film.people == 1 else [f"{film.path.stem}_left", f"{film.path.stem}_right"]
    split = "Validation_Set" if number % JUDGED == JUDGED - 1 else "Train_Set"
    for name, one in zip(names, acted, strict=True):
        rows = [f"{t + 1}," + ",".join(f"{x:.2f}" for x in one.box[t]) for t in range(film.frames) if one.seen[t]]
        for file, lines in (
            (root / "bounding_boxes" / f"{name}.csv", ["frame,x0,y0,x1,y1", *rows]),
            (root / "annotations" / "VA_Set" / split / f"{name}.txt", ["valence,arousal", *["-5,-5"] * film.frames]),
        ):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def make(folder: Path, people: int, epochs: int, frames: int, out: Path = HERE / "stn.safetensors") -> None:
    """Draws and trains in a folder, where what is there already is used, and writes `out`."""
    data, work = folder / "data", Work(folder / "work")
    work.root.mkdir(parents=True, exist_ok=True)
    wanted = films(data, people)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(draw, [film for film in wanted if not film.path.exists()]))
    config = load("demo", [
        "pretrain_stn.start=scratch", f"pretrain_stn.frames={frames}", f"pretrain_stn.epochs={epochs}",
        "pretrain_stn.validation_frames=1000", "pretrain_stn.ema=0.99", "runtime.workers=0",
    ])  # fmt: skip
    talk = Talk()
    audit(config, data, work, talk)
    extract_frames(config, data, work, talk)
    pretrain_stn(config, data, work, talk)
    state, metadata = load_weights(work.weights("stn"))
    report = {
        name: metadata["report"][name] for name in ("iou", "iou_80", "presence_auroc", "frames", "training_frames")
    }
    told = {"format": metadata["format"], "stn": metadata["stn"], "people": people, "report": report}
    state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    save_weights(out, state, told)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=800)
    parser.add_argument("--epochs", type=int, default=36)
    parser.add_argument("--frames", type=int, default=9000)
    parser.add_argument("--keep", type=Path, help="a folder for what is drawn; else a temporary one")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make(asked.keep or Path(folder), asked.people, asked.epochs, asked.frames)
    return 0


if __name__ == "__main__":
    sys.exit(main())
