"""Calibrates the intervals of the base model on FER+ and writes them into its file. The weights do not change.

    python tools/add_intervals.py FERPLUS [--model FILE] [--detector yunet.onnx] [--people N] [--check N]

Each person is a face of PublicTest, on which the base model was not trained. It is drawn into a short video: on a
background, in any size, and in two of three videos blurred, covered, dark or compressed, for a while or all the time.
The annotation is the expected valence and arousal of the votes (pipeline/learning/expression_affect.py). So the
intervals are those of the mean vote on pictures, not of annotated videos. --check prints the coverage on that many
faces of PrivateTest. About two minutes on two cores.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from affect.configs.schema import Config
from affect.models.backbone import CLASSES
from affect.pipeline.ingest import ferplus as fer
from affect.pipeline.ingest.synthetic.backgrounds import draw_background
from affect.pipeline.learning.calibration import Calibration
from affect.pipeline.learning.expression_affect import expected_affect
from affect.pipeline.learning.frame_tracks import FrameTrack
from affect.pipeline.learning.model_file import add_calibration, load_model, read_calibration
from affect.pipeline.learning.runtime import pick_compute
from affect.pipeline.learning.stn.degrade import cover_face, degrade
from affect.pipeline.records import BASE_MODEL, WHOLE
from affect.pipeline.runs.calibrate import HeadRun, Recording, calibrate_model, describe, frame_recordings, residuals
from numpy.typing import NDArray
from train_ferplus import Faces

PEOPLE = 400
FRAMES = 16
RATE = 15.0
SMALLEST, LARGEST = 0.15, 0.9
"""Height of a face, as a share of the picture."""
SQUEEZE = 9 / 16
"""Width of a face in a wide video that became a square."""
STRONGEST_BLUR = 6.0
"""Deviation of the Gaussian in pixels of the face picture, 48 in height."""
Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Scene:
    """Where the face of a video is and what spoils it. size: width and height in pixels. path: [FRAMES, 2], its upper
    left corner. blur: deviation in pixels of the face. covered, spoilt: bool [FRAMES]."""

    background: Image
    size: tuple[int, int]
    path: NDArray[np.int64]
    blur: float
    covered: NDArray[np.bool_]
    spoilt: NDArray[np.bool_]
    seed: int


def draw_scene(rng: np.random.Generator, side: int) -> Scene:
    high = round(side * np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST))))
    wide = round(high * rng.choice((1.0, SQUEEZE)))
    room = np.array((side - wide, side - high))
    ends = rng.uniform(0, 1, (2, 2)) * room
    ends[1] = ends[0] + 0.15 * (ends[1] - ends[0])
    share = np.linspace(0, 1, FRAMES)[:, None]
    path = ((1 - share) * ends[0] + share * ends[1]).round().astype(np.int64)
    spoilt = rng.random() < 2 / 3
    blur = rng.uniform(0, STRONGEST_BLUR) if spoilt and rng.random() < 0.5 else 0.0
    start = int(rng.integers(0, FRAMES))
    covered = (np.arange(FRAMES) >= start) & (spoilt and rng.random() < 0.5)
    background = np.asarray(cv2.resize(draw_background(rng, 400, 225), (side, side)), np.uint8)
    spoilt_frames = np.full(FRAMES, spoilt and rng.random() < 0.5)
    return Scene(background, (wide, high), path, blur, covered, spoilt_frames, int(rng.integers(1 << 31)))


def draw_frames(face: Image, scene: Scene) -> Image:
    """The frames of a video, uint8 [FRAMES, side, side, 3]. face: uint8 [48, 48]."""
    side, (wide, high) = len(scene.background), scene.size
    soft = cv2.GaussianBlur(face, (0, 0), scene.blur) if scene.blur > 0.1 else face
    scaled = cv2.resize(soft, (wide, high), interpolation=cv2.INTER_AREA if high < 48 else cv2.INTER_CUBIC)
    edge = np.minimum.outer(_ramp(high), _ramp(wide))[..., None]
    frames = np.empty((FRAMES, side, side, 3), np.uint8)
    for number, (x, y) in enumerate(scene.path.tolist()):
        rng = np.random.default_rng(scene.seed)  # the same cover and light in each frame
        frame = scene.background.astype(np.float32)
        part = frame[y : y + high, x : x + wide]
        part[:] = edge * scaled[..., None] + (1 - edge) * part
        picture = frame.round().clip(0, 255).astype(np.uint8)
        if scene.covered[number]:
            theta = np.array([[wide / side, 0, (2 * x + wide) / side - 1], [0, high / side, (2 * y + high) / side - 1]])
            cover_face(picture, theta, rng)
        frames[number] = degrade(picture, rng) if scene.spoilt[number] else picture
    return frames


def _ramp(length: int) -> NDArray[np.float64]:
    """From 0 to 1 and back to 0 at both edges, over a fifteenth of the length."""
    rows = np.arange(length) + 0.5
    return (np.minimum(rows, length - rows) / max(1.0, length / 15)).clip(0, 1)


def tracks(faces: Faces, count: int, config: Config, seed: int) -> Iterator[FrameTrack]:
    """A video of each of `count` faces, chosen at random."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(faces.usable.numpy())[:count]
    value = expected_affect(faces.target[rows].numpy(), CLASSES).astype(np.float32)
    for number, row in enumerate(rows.tolist()):
        pixels = torch.from_numpy(draw_frames(faces.raw[row], draw_scene(rng, config.frames.size)))
        frames = pixels.permute(0, 3, 1, 2)
        yield FrameTrack(
            f"face {row}", lambda chosen, frames=frames: frames[torch.from_numpy(chosen)], WHOLE, np.arange(FRAMES),
            np.arange(FRAMES) / RATE, np.repeat(value[number : number + 1], FRAMES, 0), np.ones(FRAMES, bool),
        )  # fmt: skip


class Setup:
    """The model and the faces. store: a folder for the boxes of the faces."""

    def __init__(self, ferplus: Path, model: Path, detector: Path | None, store: Path) -> None:
        self.ferplus, self.model, self.detector, self.store = ferplus, model, detector, store
        net, info = load_model(model)
        self.config = info.config
        compute = pick_compute(self.config.runtime)
        self.net = net.to(compute.device)
        self.run = HeadRun(net.head, self.config.clip, info.smoothing, compute, "hold")

    def recordings(self, usage: fer.Usage, count: int, seed: int) -> Iterator[Recording]:
        faces = Faces(self.ferplus, usage, self.detector, self.store)
        return frame_recordings(self.net, tracks(faces, count, self.config, seed), self.config, self.run.compute)


def calibrate_faces(setup: Setup, people: int) -> None:
    """Writes the intervals into the model file."""
    modes = calibrate_model(setup.run, setup.recordings("PublicTest", people, 1))
    add_calibration(setup.model, modes)
    print(f"{setup.model}: {describe(modes, 0.9)}")


def add_intervals(ferplus: Path, model: Path, detector: Path | None, store: Path) -> None:
    """Calibrates the intervals of a model with the default number of faces. store: a folder for their boxes."""
    calibrate_faces(Setup(ferplus, model, detector, store), PEOPLE)


def check(setup: Setup, modes: dict[str, Calibration], count: int) -> None:
    """Prints the coverage of 90 % intervals and their half-widths on faces of PrivateTest, and the half-width of
    constant intervals with the same coverage."""
    found: dict[str, list[tuple[NDArray[np.float64], NDArray[np.float64]]]] = {}
    for recording in setup.recordings("PrivateTest", count, 2):
        for mode, person in residuals(setup.run, recording).items():
            if len(person.residual):
                found.setdefault(mode, []).append((person.residual, modes[mode].half_width(person.covariate, 0.9)))
    for mode, people in found.items():
        residual, half = (np.concatenate(column) for column in zip(*people, strict=True))
        share = (residual <= half).mean(0)
        constant = np.array([np.quantile(residual[:, dimension], share[dimension]) for dimension in range(2)])
        coverage, local, same = (np.round(it, 3).tolist() for it in (share, half.mean(0), constant))
        print(
            f"{mode}: coverage {coverage}, half-width {local}, constant {same} (valence, arousal; {len(people)} faces)"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ferplus", type=Path)
    parser.add_argument("--model", type=Path, default=BASE_MODEL)
    parser.add_argument("--detector", type=Path)
    parser.add_argument("--people", type=int, default=PEOPLE)
    parser.add_argument("--check", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(options.ferplus, options.model, options.detector, Path(folder))
        if options.people:
            calibrate_faces(setup, options.people)
        if options.check:
            check(setup, read_calibration(options.model), options.check)
    return 0


if __name__ == "__main__":
    sys.exit(main())
