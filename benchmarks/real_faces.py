"""The STN on real faces: boxes by `detect-boxes` on the first 70 % of a video teach it, the last 30 % judge it.

    python benchmarks/real_faces.py VIDEO [TITLES] [--out DIR] [--epochs N]

VIDEO shows one face. TITLES shows a face in some frames only: there the STN, which never saw that video, has to tell
which. The detector is OpenCV's cascade, so the figures say how well the STN agrees with it, not with the truth.
Prints JSON; leaves a contact sheet of each video in DIR. Without arguments it takes the videos in ../shared/data.
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
from affect.pipeline.ingest.boxes import read_boxes
from affect.pipeline.ingest.video import Decoding, decoded
from affect.pipeline.learning.boxes_seen import area_under_roc
from affect.pipeline.progress import Talk
from affect.pipeline.records import Work
from affect.pipeline.stages.audit import audit
from affect.pipeline.stages.detect_boxes import detect_boxes
from affect.pipeline.stages.encoder import build_stn
from affect.pipeline.stages.extract_frames import extract_frames
from affect.pipeline.stages.figures import draw_looks
from affect.pipeline.stages.plots import LIGHT
from affect.pipeline.stages.pretrain_stn import pretrain_stn
from affect.pipeline.stages.report_looks import Look, cut
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parents[1]
DATA = HERE.parent / "shared" / "data"
PARTS = {"Train_Set": (0.0, 0.6), "Validation_Set": (0.6, 0.7)}
"""Shares of the video that teach, and that choose the epoch; what follows is looked at once, at the end."""
TALK = Talk()


def write_part(video: Path, start: float, stop: float, out: Path) -> int:
    """The frames from share `start` to `stop` of a video, encoded again at high quality. Returns how many."""
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
    """A data folder of two subjects, `Train_Set` and `Validation_Set`, without any valence and arousal."""
    (root / "videos").mkdir(parents=True)
    for split, (start, stop) in PARTS.items():
        rows = write_part(video, start, stop, root / "videos" / f"{split}.mp4")
        folder = root / "annotations" / "VA_Estimation_Challenge" / split
        folder.mkdir(parents=True)
        (folder / f"{split}.txt").write_text("valence,arousal\n" + "-5,-5\n" * rows)


@dataclass(frozen=True)
class Seen:
    """A video as the STN and the detector see it. theta, true: [n, 2, 3]; presence: probability [n]; boxed: [n]."""

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


def see(config: Config, stn: SpatialTransformer, video: Path, folder: Path) -> Seen:
    detect_boxes(config, TALK, videos=[video], out=folder)
    boxes = read_boxes(folder / f"{video.stem}.csv")

    def use(decoding: Decoding) -> Any:
        batches = list(decoding)
        whole = [np.concatenate([getattr(it, name) for it in batches]) for name in ("pixels", "time", "index")]
        return (*whole, decoding.facts.width, decoding.facts.height)

    pixels, time, index, width, height = decoded(video, config.frames.size, use)
    with torch.inference_mode():
        parts = [stn.locate(torch.from_numpy(it).permute(0, 3, 1, 2)) for it in np.array_split(pixels, 16) if len(it)]
    theta, logits = (torch.cat([part[k] for part in parts]) for k in (0, 1))
    place = np.searchsorted(boxes.frame, index).clip(0, len(boxes) - 1)
    true = theta_from_corners(torch.from_numpy(boxes.corners[place]), width, height)
    return Seen(pixels, time, theta, logits.sigmoid().numpy(), true, boxes.frame[place] == index, width, height)


def sheet(path: Path, name: str, seen: Seen, rows: NDArray[np.int64]) -> None:
    """The contact sheet of these rows."""
    import cv2

    scale = 360 / max(seen.width, seen.height)
    width, height = round(seen.width * scale), round(seen.height * scale)
    boxes = corners_from_theta(seen.theta, width, height).numpy().astype(np.float64)
    true = corners_from_theta(seen.true, width, height).numpy().astype(np.float64)
    iou = seen.iou()
    looks = []
    for row in rows.tolist():
        x0, y0, x1, y1 = boxes[row]
        picture = np.asarray(cv2.resize(seen.pixels[row], (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        crop = cut(seen.pixels[row], seen.theta[row].double().numpy(), 0.1, 160)
        corners, boxed = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]), bool(seen.boxed[row])
        looks.append(
            Look(f"{name} {seen.time[row]:.1f} s", float(seen.time[row]), picture, crop, corners,
                 true[row] if boxed else None, float(iou[row]) if boxed else None, float(seen.presence[row]))
        )  # fmt: skip
    draw_looks(path, looks, LIGHT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, nargs="?", default=DATA / "tears-to-laughter.mp4")
    parser.add_argument("titles", type=Path, nargs="?", default=DATA / "titles-then-face.mov")
    parser.add_argument("--out", type=Path, default=HERE / "work" / "real-faces")
    parser.add_argument("--epochs", type=int, default=40)
    arguments = parser.parse_args()
    if not arguments.video.is_file():
        print(f"{arguments.video} does not exist: name a video with a face in it.")
        return
    figures: dict[str, Any] = {}
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        data, work = Path(folder) / "data", Work(Path(folder) / "work")
        work.root.mkdir()
        config = load("demo", [f"pretrain_stn.epochs={arguments.epochs}", "runtime.workers=0"])
        build_tree(arguments.video, data)
        detect_boxes(config, TALK, data=data)
        audit(config, data, work, TALK)
        extract_frames(config, data, work, TALK)
        pretrain_stn(config, data, work, TALK)
        stn = build_stn(config, work.weights("stn")).eval()

        last = Path(folder) / "last.mp4"
        write_part(arguments.video, PARTS["Validation_Set"][1], 1.0, last)
        seen = see(config, stn, last, Path(folder))
        iou = seen.iou()[seen.boxed]
        figures["last 30 %"] = {
            "frames": len(seen.time), "with a box": int(seen.boxed.sum()),
            "mean IoU with the detector": float(iou.mean()), "share at 0.5": float((iou >= 0.5).mean()),
            "share at 0.7": float((iou >= 0.7).mean()),
        }  # fmt: skip
        sheet(arguments.out / "last.png", "last 30 %", seen, np.linspace(0, len(seen.time) - 1, 12).astype(np.int64))
        if arguments.titles.is_file():
            seen = see(config, stn, arguments.titles, Path(folder))
            figures["titles"] = {
                "frames": len(seen.time), "with a box": int(seen.boxed.sum()),
                "presence AUROC": area_under_roc(seen.presence, seen.boxed),
                "presence, mean with a box": float(seen.presence[seen.boxed].mean()),
                "presence, mean without": float(seen.presence[~seen.boxed].mean()),
                "mean IoU with the detector": float(seen.iou()[seen.boxed].mean()),
            }  # fmt: skip
            sheet(arguments.out / "titles.png", "titles", seen, np.linspace(0, len(seen.time) - 1, 12).astype(np.int64))
    print(json.dumps(figures, indent=1))
    print(f"contact sheets: {arguments.out}")


if __name__ == "__main__":
    main()
