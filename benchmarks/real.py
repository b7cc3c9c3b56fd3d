"""The base model on real faces: expressions of FER+, and valence, arousal and boxes on real videos.

    python benchmarks/real.py [--data DIR] [--model MODEL] [--ferplus DIR] [--out DIR]

DIR has the layout of ../shared/data: fer2013/fer2013.npz.xz, fer2013new.csv, videos/NAME with NAME.judge.csv (face box
and blendshape scores of another face tracker for each frame). What is absent is skipped. The network of the package fer
runs in an environment of its own (benchmarks/peers), if it can be installed. Prints tables and writes real.json,
confusion.png and a contact sheet per video to --out. The videos were not used to train the model.
"""

import argparse
import csv
import io
import json
import lzma
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import affect
import numpy as np
import torch
from affect.benchmarks.peers.environment import FER, RUNNER, NotInstallableError, environment
from affect.models.backbone import Backbone, folded
from affect.models.theta import box_iou, theta_from_corners
from affect.pipeline.ingest.ferplus import CLASSES, majority, read_votes
from affect.pipeline.learning.augment import crop_centre
from affect.pipeline.learning.metrics import pearson
from affect.pipeline.learning.model_file import load_model
from affect.pipeline.records import BASE_MODEL
from affect.pipeline.stages.pretrain_backbone import score
from affect.pipeline.visualization.confusion import draw_confusion
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parents[1]
DATA = HERE.parent / "shared" / "data"
MISSED = 0.1
"""A box with a lower IoU has missed the face."""
ACTED = {"ANG": "-", "DIS": "-", "FEA": "-", "SAD": "-", "HAP": "+", "furious": "-", "sad": "-", "happy": "+"}
"""Part of the name of an acted clip: the sign of the valence that the actor intends."""


FER_CLASSES = (
    CLASSES.index("anger"), CLASSES.index("disgust"), CLASSES.index("fear"), CLASSES.index("happiness"),
    CLASSES.index("sadness"), CLASSES.index("surprise"), CLASSES.index("neutral"),
)  # fmt: skip
"""The classes of the package fer, in its order. It has no contempt."""


@dataclass(frozen=True)
class Judge:
    """What another face tracker found in each frame: box [n, 4] in pixels, smile minus frown [n]; NaN: no face."""

    box: NDArray[np.float32]
    smile: NDArray[np.float64]


def read_judge(path: Path) -> Judge:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    frames = max(int(row["frame"]) for row in rows) + 1
    box, smile = np.full((frames, 4), np.nan, np.float32), np.full(frames, np.nan)
    for row in rows:
        if not row["x0"]:
            continue
        number = int(row["frame"])
        box[number] = [float(row[name]) for name in ("x0", "y0", "x1", "y1")]
        smiles, frowns = (
            float(row[f"mouth{kind}Left"]) + float(row[f"mouth{kind}Right"]) for kind in ("Smile", "Frown")
        )
        smile[number] = (smiles - frowns) / 2
    return Judge(box, smile)


def video_row(model: "affect.Model", video: Path, judge: Judge) -> dict[str, Any]:
    """Means, the correlation of valence with the judge's smile minus frown, and how well the boxes agree."""
    trace = model.predict(video)
    known = (trace.frame < len(judge.box)) & ~np.isnan(trace.valence)
    rows = trace.frame[known]
    smile, box = judge.smile[rows], judge.box[rows]
    with_face = ~np.isnan(smile)
    both = torch.from_numpy(trace.box[known][with_face]), torch.from_numpy(box[with_face])
    iou = box_iou(*(theta_from_corners(it, 1, 1) for it in both)).numpy()
    return {
        "frames": len(trace),
        "valence": float(np.nanmean(trace.valence)),
        "arousal": float(np.nanmean(trace.arousal)),
        "correlation": float(pearson(trace.valence[known][with_face], smile[with_face])),
        "iou": float(iou.mean()) if len(iou) else None,
        "missed": float((iou < MISSED).mean()) if len(iou) else None,
        "face": float(trace.seen[known][with_face].mean()) if with_face.any() else None,
    }


def videos(data: Path, model: "affect.Model", console: Console) -> dict[str, Any]:
    found = sorted(path for path in (data / "videos").glob("*") if path.with_name(path.name + ".judge.csv").is_file())
    table = Table("video", box=SIMPLE_HEAD)
    for name in ("frames", "valence", "arousal", "r with smile", "IoU", "missed", "face found"):
        table.add_column(name, justify="right")
    rows: dict[str, dict[str, Any]] = {}
    for video in found:
        row = rows[video.name] = video_row(model, video, read_judge(video.with_name(video.name + ".judge.csv")))
        table.add_row(
            video.name, str(row["frames"]),
            *(_show(row[name]) for name in ("valence", "arousal", "correlation", "iou")),
            *("" if row[name] is None else f"{row[name]:.1%}" for name in ("missed", "face")),
        )  # fmt: skip
    if not rows:
        return {}
    console.print(table)
    moving = [row["correlation"] for row in rows.values() if not np.isnan(row["correlation"])]
    acted = {name: row["valence"] for name, row in rows.items() if _sign(name)}
    correct = sum((value > 0) == (_sign(name) == "+") for name, value in acted.items())
    console.print(f"median correlation with smile minus frown: {np.median(moving):.2f} ({len(moving)} videos)")
    console.print(f"acted clips with the intended sign of valence: {correct} of {len(acted)}")
    return {"videos": rows, "median_correlation": float(np.median(moving)), "acted": [correct, len(acted)]}


def _sign(name: str) -> str:
    return next((sign for part, sign in ACTED.items() if f"_{part}" in name), "")


def _show(value: float | None) -> str:
    return "" if value is None or np.isnan(value) else f"{value:.2f}"


def classify(backbone: Backbone, pixels: NDArray[np.uint8], size: int, *, mirror: bool) -> NDArray[np.int64]:
    """The class of each face uint8 [n, 48, 48]; mirror: mean of the probabilities of the face and its mirror image."""
    out = []
    with torch.inference_mode():
        for part in torch.from_numpy(pixels).split(128):
            faces = crop_centre(part[:, None].expand(-1, 3, -1, -1), size)
            said = backbone(faces)[1].softmax(1)
            out.append((said + backbone(faces.flip(3))[1].softmax(1) if mirror else said).argmax(1))
    return torch.cat(out).numpy()


def classify_by_fer(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The class of each face uint8 [n, 48, 48] by the network of the package fer, as a number of CLASSES.

    Raises NotInstallableError.
    """
    with tempfile.TemporaryDirectory() as folder:
        faces, out = Path(folder, "faces.npy"), Path(folder, "out.npy")
        np.save(faces, pixels)
        words = [environment(), RUNNER, "faces", faces, out]
        subprocess.run([str(word) for word in words], check=True, capture_output=True)
        return np.array(FER_CLASSES)[np.load(out).argmax(1)]


def expressions(data: Path, model: Path, out: Path, console: Console) -> dict[str, Any]:
    archive, votes_file = data / "fer2013" / "fer2013.npz.xz", data / "fer2013new.csv"
    if not archive.is_file() or not votes_file.is_file():
        return {}
    with np.load(io.BytesIO(lzma.open(archive).read())) as arrays:
        pixels = arrays["images"]
    usages, votes = read_votes(votes_file)
    usage, label = np.array(usages), majority(votes)
    network, info = load_model(model)
    backbone, size = folded(network.backbone), network.stn.crop
    known = {face.tobytes() for face in pixels[usage == "Training"]}
    test = (usage == "PrivateTest") & (label >= 0)
    faces, wanted = pixels[test], label[test]
    leaked = np.array([face.tobytes() in known for face in faces])
    seven = wanted != CLASSES.index("contempt")
    parts = {
        "all": np.ones(len(wanted), bool), "without leaked": ~leaked, "without contempt": seven,
        "without leaked and contempt": seven & ~leaked,
    }  # fmt: skip
    table = Table("FER+ PrivateTest, majority", *parts, box=SIMPLE_HEAD)
    figures: dict[str, Any] = {"counts": {name: int(part.sum()) for name, part in parts.items()}}

    def add(name: str, said: NDArray[np.int64]) -> None:
        figures[name] = {part: float((said == wanted)[rows].mean()) for part, rows in parts.items()}
        table.add_row(name, *(f"{figure:.4f}" for figure in figures[name].values()))

    said = classify(backbone, faces, size, mirror=False)
    add("one crop", said)
    add("with its mirror image", classify(backbone, faces, size, mirror=True))
    try:
        add(f"{FER}, which has no contempt", classify_by_fer(faces))
    except NotInstallableError as error:
        console.print(f"{FER} cannot be installed, so it is not measured: {error}")
    table.add_row("faces", *map(str, figures["counts"].values()))
    figures |= score(said, wanted, info.classes)
    draw_confusion(figures, out / "confusion.png")
    console.print(table)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--model", type=Path, default=BASE_MODEL)
    parser.add_argument("--out", type=Path, default=HERE / "work" / "real")
    options = parser.parse_args()
    console = Console(width=120)
    if not options.data.is_dir():
        console.print(f"{options.data} does not exist: no real data to measure on.")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    figures: Mapping[str, Any] = {
        "expressions": expressions(options.data, options.model, options.out, console),
        "videos": videos(options.data, affect.load(options.model), console),
    }
    (options.out / "real.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    console.print(f"{options.out / 'real.json'}")


if __name__ == "__main__":
    main()
