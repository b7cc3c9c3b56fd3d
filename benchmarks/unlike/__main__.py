"""Measures the warning "unlike the training data": AUROC for each other kind, and how often it is right.

    python -m affect.benchmarks.unlike [--data DIR] [--model MODEL] [--drawn-run RUN] [--out DIR]

DIR has the layout of ../shared/data: faces/ with a boxes.csv, fer2013/fer2013.npz.xz, fer2013new.csv, videos/. MODEL: a
model of real faces with a reference, the base model by default. RUN: the run of a model that was trained on the drawn
people of the demo, in its work folder. What is absent is skipped. None of the pictures was used to fit the reference of
the base model. Prints tables and writes unlike.json to --out.
"""

import argparse
import io
import json
import lzma
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from affect.pipeline.inference.load import settings_for
from affect.pipeline.inference.predictor import Predictor
from affect.pipeline.ingest.ferplus import majority, read_votes
from affect.pipeline.ingest.pictures import read_picture
from affect.pipeline.learning.augment import crop_centre
from affect.pipeline.learning.model_file import read_reference
from affect.pipeline.learning.reference import Reference
from affect.pipeline.records import BASE_MODEL
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from scipy.stats import rankdata

from . import kinds
from .kinds import Features

HERE = Path(__file__).resolve().parents[2]
DATA = HERE.parent / "shared" / "data"
VIDEO_FRAMES = 12
DRAWN = 30
MIN_SEEN = 3
"""A video with fewer frames with a face is left out."""


@dataclass(frozen=True)
class Scores:
    """The distances of one kind. own: whether it is the kind that the model was trained on. unit: `faces` or `videos`.
    distance: float [n]. found: share of them in which affect finds a face."""

    name: str
    own: bool
    unit: str
    distance: NDArray[np.float64]
    found: float


def auroc(own: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Probability that a distance of `other` is larger than one of `own`."""
    rank = rankdata(np.concatenate((own, other)))[len(own) :]
    return float((rank.sum() - len(other) * (len(other) + 1) / 2) / (len(own) * len(other)))


def of_faces(reference: Reference, name: str, features: Features, *, own: bool = False) -> Scores:
    distance = reference.distance(features.description).double().numpy()
    if own:  # what is no face is another kind
        distance = distance[features.seen]
    return Scores(name, own, "faces", distance, float(features.seen.mean()))


def of_videos(reference: Reference, name: str, videos: Sequence[Features], *, own: bool = False) -> Scores:
    """The distance of each video, as in `affect predict`."""
    usable = [video for video in videos if video.seen.sum() >= MIN_SEEN]
    judged = [reference.judge(reference.distance(it.description).numpy(), it.seen) for it in usable]
    found = sum(float(it.seen.mean()) for it in videos) / max(1, len(videos))
    return Scores(name, own, "videos", np.array([it.distance for it in judged if it is not None]), found)


def ferplus_test(predictor: Predictor, data: Path) -> Features | None:
    """The faces of FER+ PrivateTest with a majority that are not also in Training."""
    archive, votes_file = data / "fer2013" / "fer2013.npz.xz", data / "fer2013new.csv"
    if not archive.is_file() or not votes_file.is_file():
        return None
    with np.load(io.BytesIO(lzma.open(archive).read())) as arrays:
        pixels = arrays["images"]
    usages, votes = read_votes(votes_file)
    usage = np.array(usages)
    known = {face.tobytes() for face in pixels[usage == "Training"]}
    chosen = pixels[(usage == "PrivateTest") & (majority(votes) >= 0)][::3]
    chosen = np.stack([face for face in chosen if face.tobytes() not in known])
    found = []
    for part in torch.from_numpy(chosen).split(64):
        crops = crop_centre(part[:, None].expand(-1, 3, -1, -1), predictor.net.stn.crop)
        found.append(kinds.encode_crops(predictor, crops))
    return kinds.joined(found)


def changed_faces(predictor: Predictor, folder: Path) -> dict[str, Features]:
    """Kinds that the reference was never fitted to: negatives and faces upside down."""
    chosen = list(kinds.chosen(folder, "lfw", "test"))[::2]
    return {
        "negative": kinds.encode(predictor, (255 - read_picture(it.path) for it in chosen)),
        "upside down": kinds.encode(predictor, (read_picture(it.path)[::-1].copy() for it in chosen)),
    }


def real_videos(predictor: Predictor, data: Path) -> list[Features]:
    paths = [path for path in sorted((data / "videos").glob("*")) if path.suffix != ".csv"]
    return [kinds.encode_video(predictor, path, VIDEO_FRAMES) for path in [*paths, data / "tears-to-laughter.mp4"]]


def real_model(model: Path, data: Path, folder: Path) -> list[Scores]:
    """The kinds for a model of real faces."""
    predictor, reference = _load(model)
    faces, rng = data / "faces", np.random.default_rng(5)
    ferplus = ferplus_test(predictor, data)
    drawn = kinds.drawn_people(predictor, folder, "test", DRAWN)
    filtered = {**kinds.filtered_faces(predictor, faces, "test"), **changed_faces(predictor, faces)}
    return [
        *([of_faces(reference, "FER+ PrivateTest", ferplus, own=True)] if ferplus else []),
        of_faces(reference, "LFW", kinds.real_faces(predictor, faces, "test"), own=True),
        of_faces(reference, "LFW, changed", kinds.real_faces(predictor, faces, "test", rng), own=True),
        of_videos(reference, "real videos", real_videos(predictor, data), own=True),
        of_faces(reference, "face with a mask", kinds.crowd_faces(predictor, faces, "test", "masked")),
        *(of_faces(reference, name, it) for name, it in kinds.no_people(predictor, faces, "test").items()),
        of_faces(reference, "drawn face", kinds.joined(drawn)),
        of_videos(reference, "drawn videos", drawn),
        *(of_faces(reference, name, it) for name, it in filtered.items()),
    ]


def drawn_model(run: Path, data: Path, folder: Path) -> list[Scores]:
    """The kinds for a model of drawn people."""
    predictor, reference = _load(run)
    faces = data / "faces"
    drawn = kinds.drawn_people(predictor, folder, "test", DRAWN)
    return [
        of_faces(reference, "drawn face", kinds.joined(drawn), own=True),
        of_videos(reference, "drawn videos", drawn, own=True),
        of_faces(reference, "LFW", kinds.real_faces(predictor, faces, "test")),
        of_videos(reference, "real videos", real_videos(predictor, data)),
        of_faces(reference, "face with a mask", kinds.crowd_faces(predictor, faces, "test", "masked")),
        *(of_faces(reference, name, it) for name, it in kinds.no_people(predictor, faces, "test").items()),
        *(of_faces(reference, name, it) for name, it in kinds.filtered_faces(predictor, faces, "test").items()),
    ]


def show(title: str, limit: float, found: Sequence[Scores], console: Console) -> dict[str, dict[str, float]]:
    """Prints a row for each kind. AUROC is against own faces, and for videos against own videos."""
    table = Table(title, "", box=SIMPLE_HEAD)
    for name in ("number", "face found", "median", "warned", "AUROC"):
        table.add_column(name, justify="right")
    rows: dict[str, dict[str, float]] = {}
    for it in found:
        own = np.concatenate([other.distance for other in found if other.own and other.unit == it.unit])
        area = {} if it.own else {"auroc": auroc(own, it.distance)}
        warned = float((it.distance > limit).mean())
        rows[it.name] = {"number": len(it.distance), "found": it.found, "warned": warned, **area}
        table.add_row(
            it.name, "own" if it.own else "", f"{len(it.distance)} {it.unit}", f"{it.found:.0%}",
            f"{np.median(it.distance):.2f}", f"{warned:.1%}", f"{area['auroc']:.3f}" if area else "",
        )  # fmt: skip
    console.print(table)
    return rows


def cost(model: Path) -> dict[str, float]:
    """CPU time in ms for each frame: of the networks, and of the distance."""
    predictor, reference = _load(model)
    pixels = np.random.default_rng(0).integers(0, 256, (32, predictor.size, predictor.size, 3), np.uint8)
    description = torch.rand(32, 2560)
    times = {"networks": [], "distance": []}
    for _ in range(5):
        began = time.process_time()
        predictor.encode_pixels(pixels, 640, 360)
        middle = time.process_time()
        for _ in range(20):
            reference.distance(description)
        times["networks"].append((middle - began) / 32 * 1000)
        times["distance"].append((time.process_time() - middle) / 32 / 20 * 1000)
    return {name: float(np.median(values)) for name, values in times.items()}


def _load(model: Path) -> tuple[Predictor, Reference]:
    predictor = Predictor(model, settings_for(model, ["runtime.device=cpu"]))
    if predictor.reference is None:
        raise SystemExit(f"{model}: has no reference. Make it with tools/add_reference.py, or train the run again.")
    return predictor, predictor.reference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--model", type=Path, default=BASE_MODEL)
    parser.add_argument("--drawn-run", type=Path, default=HERE / "work" / "train" / "default")
    parser.add_argument("--out", type=Path, default=HERE / "work" / "real")
    options = parser.parse_args()
    console = Console(width=120)
    if not (options.data / "faces" / "boxes.csv").is_file():
        console.print(f"{options.data / 'faces'} has no boxes.csv: no pictures to measure on.")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for title, path, measure in (
            ("model of real faces", options.model, real_model),
            ("model of drawn people", options.drawn_run, drawn_model),
        ):
            if not path.exists() or (reference := read_reference(path)) is None:
                console.print(f"{path} does not exist or has no reference: the {title} is not measured.")
                continue
            found = measure(path, options.data, Path(folder))
            figures[title] = {"limit": reference.limit, "kinds": show(title, reference.limit, found, console)}
    if options.model.exists() and read_reference(options.model) is not None:
        spent = figures["cost"] = cost(options.model)
        console.print(f"CPU time of a frame: networks {spent['networks']:.2f} ms, distance {spent['distance']:.4f} ms")
    (options.out / "unlike.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    console.print(f"{options.out / 'unlike.json'}")


if __name__ == "__main__":
    main()
