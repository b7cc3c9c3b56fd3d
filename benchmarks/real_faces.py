"""Trains the STN on real faces and compares its boxes with those of the face detector.

    python benchmarks/real_faces.py VIDEO [TITLES] [--out DIR] [--epochs N]

VIDEO shows one face. The boxes of `detect-boxes` in its first 70 % train the STN, and the last 30 % test it. TITLES is
a video that the STN was not trained on, with a face in only some of its frames; there, the STN's face probability is
tested too. The detector is OpenCV's cascade, so the figures measure the agreement with it, not with the truth. Prints
JSON and writes a contact sheet per video to DIR. Without arguments, it uses the videos in ../shared/data.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from affect.configs.schema import Config, load
from affect.models.stn import SpatialTransformer
from affect.models.theta import box_iou, corners_from_theta, theta_from_corners
from affect.pipeline.features.encoder import build_stn
from affect.pipeline.ingest.boxes import read_boxes
from affect.pipeline.ingest.video.decode import Decoding, decoded
from affect.pipeline.learning.stn.objective import area_under_roc
from affect.pipeline.progress import Reporter
from affect.pipeline.records import Work
from affect.pipeline.stages.audit import audit
from affect.pipeline.stages.detect_boxes import detect_boxes
from affect.pipeline.stages.extract_frames import extract_frames
from affect.pipeline.stages.pretrain_stn import pretrain_stn
from affect.pipeline.visualization.report.figures import draw_crops
from affect.pipeline.visualization.report.stn_samples import StnSample, cut
from affect.pipeline.visualization.style import LIGHT
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parents[1]
DATA = HERE.parent / "shared" / "data"
PARTS = {"Train_Set": (0.0, 0.6), "Validation_Set": (0.6, 0.7)}
"""The shares of the video for training and for the choice of the epoch. The rest is the test."""
REPORTER = Reporter()


def write_part(video: Path, start: float, stop: float, out: Path) -> int:
    """Writes the frames from share `start` to `stop` of a video, encoded at high quality. Returns their number."""
    with av.open(str(video)) as source:
        frames = [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]
        rate = source.streams.video[0].average_rate or Fraction(30)
    chosen = frames[round(start * len(frames)) : round(stop * len(frames))]
    with av.open(str(out), "w") as sink:
        stream = sink.add_stream("libx264", rate=rate, options={"crf": "12"})
        stream.height, stream.width = chosen[0].shape[0] // 2 * 2, chosen[0].shape[1] // 2 * 2
        stream.pix_fmt = "yuv420p"
        for pixels in chosen:
            even = np.ascontiguousarray(pixels[: stream.height, : stream.width], np.uint8)
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        sink.mux(stream.encode())
    return len(chosen)


def build_tree(video: Path, root: Path) -> None:
    """Writes a data folder with one subject per split, whose frames have no valence and arousal."""
    (root / "videos").mkdir(parents=True)
    for split, (start, stop) in PARTS.items():
        rows = write_part(video, start, stop, root / "videos" / f"{split}.mp4")
        folder = root / "annotations" / "VA_Estimation_Challenge" / split
        folder.mkdir(parents=True)
        (folder / f"{split}.txt").write_text("valence,arousal\n" + "-5,-5\n" * rows)


@dataclass(frozen=True)
class StnResult:
    """The results of the STN and of the detector for a video.

    pixels: the frames. theta: [n, 2, 3] of the STN. presence: [n], face probability of the STN. true: [n, 2, 3] of the
    detector. boxed: bool [n], whether the detector has a box.
    """

    pixels: NDArray[np.uint8]
    time: NDArray[np.float64]
    theta: torch.Tensor
    presence: NDArray[np.float32]
    true: torch.Tensor
    boxed: NDArray[np.bool_]
    width: int
    height: int

    def iou(self) -> NDArray[np.float32]:
        return box_iou(self.theta, self.true).numpy()


def run_stn(config: Config, stn: SpatialTransformer, video: Path, folder: Path) -> StnResult:
    """Runs the STN and the detector on a video."""
    detect_boxes(config, REPORTER, videos=[video], out=folder)
    boxes = read_boxes(folder / f"{video.stem}.csv")

    def read(decoding: Decoding) -> Any:
        batches = list(decoding)
        whole = [np.concatenate([getattr(it, name) for it in batches]) for name in ("pixels", "time", "index")]
        return (*whole, decoding.facts.width, decoding.facts.height)

    pixels, time, index, width, height = decoded(video, config.frames.size, read)
    with torch.inference_mode():
        parts = [stn.locate(torch.from_numpy(it).permute(0, 3, 1, 2)) for it in np.array_split(pixels, 16) if len(it)]
    theta, logits = (torch.cat([part[k] for part in parts]) for k in (0, 1))
    row = np.searchsorted(boxes.frame, index).clip(0, len(boxes) - 1)
    true = theta_from_corners(torch.from_numpy(boxes.corners[row]), width, height)
    return StnResult(pixels, time, theta, logits.sigmoid().numpy(), true, boxes.frame[row] == index, width, height)


def draw_sheet(path: Path, name: str, result: StnResult, rows: NDArray[np.int64]) -> None:
    """Draws the contact sheet of these rows."""
    import cv2

    scale = 360 / max(result.width, result.height)
    width, height = round(result.width * scale), round(result.height * scale)
    boxes = corners_from_theta(result.theta, width, height).numpy().astype(np.float64)
    true = corners_from_theta(result.true, width, height).numpy().astype(np.float64)
    iou = result.iou()
    samples = []
    for row in rows.tolist():
        x0, y0, x1, y1 = boxes[row]
        picture = np.asarray(cv2.resize(result.pixels[row], (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        crop = cut(result.pixels[row], result.theta[row].double().numpy(), 0.1, 160)
        corners, boxed = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]), bool(result.boxed[row])
        samples.append(
            StnSample(f"{name} {result.time[row]:.1f} s", float(result.time[row]), picture, crop, corners,
                 true[row] if boxed else None, float(iou[row]) if boxed else None, float(result.presence[row]))
        )  # fmt: skip
    draw_crops(path, samples, LIGHT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, nargs="?", default=DATA / "tears-to-laughter.mp4")
    parser.add_argument("titles", type=Path, nargs="?", default=DATA / "titles-then-face.mov")
    parser.add_argument("--out", type=Path, default=HERE / "work" / "real-faces")
    parser.add_argument("--epochs", type=int, default=40)
    arguments = parser.parse_args()
    if not arguments.video.is_file():
        print(f"{arguments.video} does not exist. Give a video with a face.")
        return
    figures: dict[str, Any] = {}
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        data, work = Path(folder) / "data", Work(Path(folder) / "work")
        work.root.mkdir()
        config = load("demo", [f"pretrain_stn.epochs={arguments.epochs}", "runtime.workers=0"])
        build_tree(arguments.video, data)
        detect_boxes(config, REPORTER, data=data)
        audit(config, data, work, REPORTER)
        extract_frames(config, data, work, REPORTER)
        pretrain_stn(config, data, work, REPORTER)
        stn = build_stn(config, work.weights("stn")).eval()

        last = Path(folder) / "last.mp4"
        write_part(arguments.video, PARTS["Validation_Set"][1], 1.0, last)
        result = run_stn(config, stn, last, Path(folder))
        iou = result.iou()[result.boxed]
        figures["last 30 %"] = {
            "frames": len(result.time), "with a box": int(result.boxed.sum()),
            "mean IoU with the detector": float(iou.mean()), "share at 0.5": float((iou >= 0.5).mean()),
            "share at 0.7": float((iou >= 0.7).mean()),
        }  # fmt: skip
        draw_sheet(
            arguments.out / "last.png", "last 30 %", result, np.linspace(0, len(result.time) - 1, 12).astype(np.int64)
        )
        if arguments.titles.is_file():
            result = run_stn(config, stn, arguments.titles, Path(folder))
            figures["titles"] = {
                "frames": len(result.time), "with a box": int(result.boxed.sum()),
                "presence AUROC": area_under_roc(result.presence, result.boxed),
                "presence, mean with a box": float(result.presence[result.boxed].mean()),
                "presence, mean without a box": float(result.presence[~result.boxed].mean()),
                "mean IoU with the detector": float(result.iou()[result.boxed].mean()),
            }  # fmt: skip
            draw_sheet(
                arguments.out / "titles.png",
                "titles",
                result,
                np.linspace(0, len(result.time) - 1, 12).astype(np.int64),
            )
    print(json.dumps(figures, indent=1))
    print(f"contact sheets: {arguments.out}")


if __name__ == "__main__":
    main()
