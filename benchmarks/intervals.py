"""The intervals on people that were neither trained nor calibrated on: coverage, width and cost.

    python benchmarks/intervals.py coverage WORK [--folds 5] [--level 0.9]
    python benchmarks/intervals.py strength FIGURE VIDEO… [--model RUN] [--frames 60]
    python benchmarks/intervals.py cost VIDEO [--model RUN] [--repeats 5]

coverage: WORK has cached features. The videos are divided into folds. In each round, one fold is for the test, the next
one is the validation split, on which the training stops and the intervals are calibrated, and the rest is for training.
Prints the share of annotations in the intervals and the mean width, beside intervals of constant width, which are also
scaled to the same coverage. The backbone must not have been adapted on these people, so WORK needs `adapt.epochs=0`.

strength: blurs, covers and shrinks the faces of videos, and draws the mean width over the strength. The model needs
intervals; default: the base model. cost: the CPU time of a prediction with intervals by that without.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import affect
import cv2
import numpy as np
from affect.configs.schema import Config, load
from affect.models.affect_net import AffectNet
from affect.pipeline.errors import InputError
from affect.pipeline.features.encoder import build_encoder, plan_encoder
from affect.pipeline.inference.intervals import COVARIATES, MODES
from affect.pipeline.ingest.video.decode import Decoding, decoded
from affect.pipeline.learning.fit_calibration import Person, calibrate
from affect.pipeline.learning.from_cache import FromCache
from affect.pipeline.learning.runtime import pick_compute, seed_everything
from affect.pipeline.learning.tracks import FeatureTracks, Track, read_track
from affect.pipeline.progress import Reporter
from affect.pipeline.records import DIMENSIONS, Work
from affect.pipeline.runs.build import init_head
from affect.pipeline.runs.calibrate import HeadRun, cached_recordings, residuals
from affect.pipeline.runs.fit import fit_task, smoothing_of
from affect.pipeline.runs.splits import cached_subjects
from affect.pipeline.visualization.style import LIGHT, drawing, heading, save
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

QUIET = Reporter(quiet=True)
STRENGTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
CASES = {"blur": "blurred", "cover": "covered", "shrink": "small"}
LEAST = 0.75
"""Coverage that nine of ten subjects should reach."""


@dataclass(frozen=True)
class Tested:
    """One subject of a test fold. inside: bool [n, 2]. half: [n, 2], half the width of the intervals, and width: within
    [-1, 1]. residual, value: [n, 2], the absolute residual and value."""

    inside: NDArray[np.bool_]
    half: NDArray[np.float64]
    width: NDArray[np.float64]
    residual: NDArray[np.float64]
    value: NDArray[np.float64]


def width_of(value: NDArray[np.float64], half: NDArray[np.float64]) -> NDArray[np.float64]:
    """The width within [-1, 1]. value: absolute."""
    return np.minimum(1, value + half) - np.maximum(-1, value - half)


def round_of(
    config: Config, work: Work, parts: Sequence[Sequence[Track]]
) -> tuple[dict[str, list[Person]], dict[str, list[Person]]]:
    """Trains a head on the first part and stops on the second. Returns the residuals of the second and the third part,
    by the way to run the model."""
    compute = pick_compute(config.runtime)
    seed_everything(config.runtime.seed)
    training, validation = (FeatureTracks(part, compute.device) for part in parts[:2])
    task = FromCache(init_head(config, None, training.width), training, validation, config, compute, calibrate=True)
    fit_task(task, config, QUIET, on_epoch=lambda line: None)
    smoothing = smoothing_of(task, config, QUIET)
    net = AffectNet(*build_encoder(config, plan_encoder(config, work)), task.model).eval()
    run = HeadRun(task.model, config.clip, smoothing, compute, config.predict.no_face)
    found: list[dict[str, list[Person]]] = []
    for part in parts[1:]:
        people: dict[str, list[Person]] = {mode: [] for mode in MODES}
        for recording in cached_recordings(net, {track.subject: track.path for track in part}, config):
            for mode, person in residuals(run, recording).items():
                if len(person.residual):
                    people[mode].append(person)
        found.append(people)
    return found[0], found[1]


def tested(calibration: Sequence[Person], test: Sequence[Person], level: float, *, constant: bool) -> list[Tested]:
    columns = [list(COVARIATES).index(name) for name in DIMENSIONS]
    found = calibrate(calibration, tuple(COVARIATES), tuple(COVARIATES.values()), constant=constant)
    results = []
    for person in test:
        half, value = found.half_width(person.covariate, level), person.covariate[:, columns]
        results.append(Tested(person.residual <= half, half, width_of(value, half), person.residual, value))
    return results


def coverage(work: Work, folds: int, level: float, console: Console) -> None:
    config = load(str(work.config))
    shards = cached_subjects(work)
    tracks = {name: read_track(shard.path) for name, shard in shards.items()}
    tracks = {name: track for name, track in tracks.items() if track.valid.any()}
    videos = sorted({shards[name].video for name in tracks}, key=lambda video: sha256(video.encode()).hexdigest())
    place = {video: number % folds for number, video in enumerate(videos)}
    results: dict[tuple[str, bool], list[Tested]] = {(mode, kind): [] for mode in MODES for kind in (False, True)}
    for fold in range(folds):
        parts: list[list[Track]] = [[], [], []]
        for name, track in tracks.items():
            parts[{fold: 2, (fold + 1) % folds: 1}.get(place[shards[name].video], 0)].append(track)
        known, new = round_of(config, work, parts)
        console.print(f"fold {fold + 1}/{folds}: {', '.join(str(len(part)) for part in parts)} people", style="dim")
        for (mode, constant), found in results.items():
            found += tested(known[mode], new[mode], level, constant=constant)
    console.print(coverage_table(results, level, f"{len(tracks)} people in {folds} folds"))


def coverage_table(results: dict[tuple[str, bool], list[Tested]], level: float, title: str) -> Table:
    table = Table("run", "intervals", box=SIMPLE_HEAD, title=f"{level:.0%} intervals, {title}")
    for name in DIMENSIONS:
        for column in (f"{name}: coverage", f"subjects ≥ {LEAST:g}", "width", "constant, same coverage"):
            table.add_column(column, justify="right")
    for (mode, constant), found in results.items():
        cells = []
        for dimension in range(2):
            inside = np.concatenate([it.inside[:, dimension] for it in found])
            residual, value = (
                np.concatenate([getattr(it, name)[:, dimension] for it in found]) for name in ("residual", "value")
            )
            share = np.mean([it.inside[:, dimension].mean() >= LEAST for it in found])
            width = np.concatenate([it.width[:, dimension] for it in found]).mean()
            half = np.concatenate([it.half[:, dimension] for it in results[mode, True]])
            same = (
                "" if constant else f"{width_of(value, half * np.quantile(residual / half, inside.mean())).mean():.3f}"
            )
            cells += [f"{inside.mean():.3f}", f"{share:.2f}", f"{width:.3f}", same]
        table.add_row(mode, "constant" if constant else "local", *cells)
    return table


def spoil(pixels: NDArray[np.uint8], box: NDArray[np.float32], case: str, strength: float) -> NDArray[np.uint8]:
    """The frame with a worse face. box: x0 y0 x1 y1 in its pixels. strength: in [0, 1]."""
    x0, y0, x1, y1 = box.round().astype(int).tolist()
    high = max(2, y1 - y0)
    changed = pixels.copy()
    if strength == 0:
        return changed
    if case == "blur":
        return np.asarray(cv2.GaussianBlur(changed, (0, 0), 0.06 * strength * high), np.uint8)
    if case == "cover":  # a hand-coloured bar over the lower part of the face
        cv2.rectangle(changed, (x0, round(y1 - strength * 0.9 * high)), (x1, y1), (172, 116, 78), -1)
        return changed
    scale = 1 - 0.92 * strength  # the whole scene moves away; its surroundings are its own blurred copy
    height, width = pixels.shape[:2]
    ground = np.asarray(cv2.GaussianBlur(pixels, (0, 0), width / 12), np.uint8)
    small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    top, left = (height - small.shape[0]) // 2, (width - small.shape[1]) // 2
    ground[top : top + small.shape[0], left : left + small.shape[1]] = small
    return ground


def widths(model: "affect.Model", video: Path, frames: int) -> dict[str, NDArray[np.float64]]:
    """Mean width of valence and arousal over STRENGTHS, [s, 2], for each case."""
    predictor = model._predictor
    intervals = predictor.intervals
    if intervals is None:
        raise InputError(f"{model.path}: has no intervals", "Calibrate it, see docs/intervals.md.")

    def read(decoding: Decoding) -> list[NDArray[np.uint8]]:
        return [pixels for batch in decoding for pixels in batch.pixels]

    squares = decoded(video, predictor.size, read, batch=32)[:frames]
    box = predictor.encode_pixels(np.stack(squares), predictor.size, predictor.size).box
    pairs = list(zip(squares, box, strict=True))
    return {
        case: np.array([_mean_width(model, [spoil(*it, case, s) for it in pairs]) for s in STRENGTHS]) for case in CASES
    }


def _mean_width(model: "affect.Model", frames: list[NDArray[np.uint8]]) -> NDArray[np.float64]:
    moments = list(model.stream(frames, rate=25.0))
    ends = np.array([(it.valence_low, it.valence_high, it.arousal_low, it.arousal_high) for it in moments])
    width = ends[:, 1::2] - ends[:, ::2]
    known = np.isfinite(width).all(1)  # a face that is never found has no value, and so the whole range
    return width[known].mean(0) if known.any() else np.full(2, 2.0)


def strength(figure_path: Path, named: Sequence[Path], model: "affect.Model", frames: int, console: Console) -> None:
    found = [widths(model, video, frames) for video in named]
    table = Table("face", *(f"{s:g}" for s in STRENGTHS), box=SIMPLE_HEAD, title="Mean width (valence / arousal)")
    for case, word in CASES.items():
        mean = np.mean([it[case] for it in found], 0)
        table.add_row(word, *(f"{valence:.2f} / {arousal:.2f}" for valence, arousal in mean.tolist()))
    console.print(table)
    with drawing(LIGHT, 10.5, 3.2) as figure:
        panels = figure.subplots(1, len(CASES), sharey=True)
        for axes, (case, word) in zip(panels, CASES.items(), strict=True):
            heading(axes, f"Faces {word}")
            for column, name in enumerate(DIMENSIONS):
                colour, dash = LIGHT.of(name), "-" if column == 0 else (0, (4, 2))
                for it in found:
                    axes.plot(STRENGTHS, it[case][:, column], color=colour, alpha=0.25, linewidth=0.8, linestyle=dash)
                mean = np.mean([it[case][:, column] for it in found], 0)
                axes.plot(STRENGTHS, mean, color=colour, linewidth=2.2, linestyle=dash, label=name)
            axes.set(xlabel="strength", ylim=(0, 2.05))
        panels[0].set_ylabel("width of the interval")
        panels[0].legend(loc="upper left")
        save(figure, figure_path, dpi=130)


def cost(video: Path, model: "affect.Model", repeats: int, console: Console) -> None:
    """Predictions with and without intervals in turn; prints the ratio of their CPU times."""
    predictor = model._predictor
    intervals, spent = predictor.intervals, np.zeros((repeats, 2))
    model.predict(video)
    for row in range(repeats):
        for column in (row % 2, 1 - row % 2):
            predictor.intervals = intervals if column else None
            begun = time.process_time()
            model.predict(video)
            spent[row, column] = time.process_time() - begun
    ratio = np.median(spent[:, 1] / spent[:, 0])
    console.print(f"CPU time without intervals {np.median(spent[:, 0]):.2f} s, with {np.median(spent[:, 1]):.2f} s, "
                  f"median ratio {ratio:.3f} over {repeats} pairs")  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    one = parts.add_parser("coverage")
    one.add_argument("work", type=Path)
    one.add_argument("--folds", type=int, default=5)
    one.add_argument("--level", type=float, default=0.9)
    two, three = parts.add_parser("strength"), parts.add_parser("cost")
    two.add_argument("figure", type=Path)
    two.add_argument("videos", type=Path, nargs="+")
    two.add_argument("--frames", type=int, default=60)
    three.add_argument("video", type=Path)
    three.add_argument("--repeats", type=int, default=5)
    for part in (two, three):
        part.add_argument("--model", type=Path)
    options, console = parser.parse_args(), Console(width=150)
    actions: dict[str, Callable[[], Any]] = {
        "coverage": lambda: coverage(Work(options.work), options.folds, options.level, console),
        "strength": lambda: strength(
            options.figure, options.videos, affect.load(options.model), options.frames, console
        ),
        "cost": lambda: cost(options.video, affect.load(options.model), options.repeats, console),
    }
    actions[options.part]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
