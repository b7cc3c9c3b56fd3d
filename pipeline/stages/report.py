"""affect report: one HTML page with plots of the training results. It shows what exists and names what is missing."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ...configs.schema import Config, load
from ..errors import AffectError, ConfigError, ShardError, WorkError
from ..features.encoder import SCRATCH
from ..learning.metrics import pooled
from ..progress import Reporter
from ..records import MODEL_FILE, Problem, StageReport, Work
from ..runs.folder import read_result
from ..runs.splits import Cached, cached_subjects, evaluated
from ..storage.atomic import write_text
from ..storage.fingerprint import fingerprint, without_unset
from ..version import __version__
from ..visualization.confusion import draw_confusion, has_confusion
from ..visualization.report.data import (
    SPLIT,
    Run,
    Series,
    find_runs,
    numbers_of,
    read_predictions,
    read_runs,
    weights_report,
)
from ..visualization.report.page import Page, page_source, write_page
from ..visualization.report.stn_samples import Fit, StnSample, measure, sample_crops, true_boxes
from ..visualization.report.subjects import cards
from ..visualization.report.videos import clips_of, predicted, read_by

STAGE = "report"
VERSION = 4
STN_FIGURES = {
    "iou": "mean IoU at the end of pretraining",
    "iou_80": "share with an IoU of 0.8 or more", "presence_auroc": "face presence: AUROC",
    "frames": "validation frames then",
}  # fmt: skip
WEIGHTS = ("stn", "backbone", "adapted")


def report(config: Config, work: Work, reporter: Reporter) -> StageReport:
    """Writes W/report: index.html, which needs no other file, its pictures as PNG, and report.json.

    The curves and the table show all runs; the other sections show the run that is best on validation. The page lists
    what cannot be shown, with the command that creates it. Raises MissingStageError if there is no run.
    """
    output = work.report / "index.html"
    key = _key(config, work, find_runs(work))
    record = _kept(work.report, key)
    if record is not None:
        return _report(output, record, kept=(output.name,))

    runs = read_runs(find_runs(work))
    best = runs[0]
    predictions = read_predictions(best.folder / f"predictions-{SPLIT}.csv")
    shards, problems = _shards(work, best)
    missing = _missing(work, best, predictions, shards)
    boxes = true_boxes(work, [shard.subject for shard in shards])
    its_config = _config_of(best, config)
    samples: list[StnSample] = []
    fits: list[Fit] = []
    if its_config.stn.localiser == "aligned":
        missing["stn"] = "The crops were provided (stn.localiser is aligned): there is no STN to show."
    else:
        samples, failed = sample_crops(work, shards, boxes, margin=its_config.stn.margin, size=its_config.stn.crop)
        fits, more = measure(shards, boxes, reporter)
        problems += [*failed, *more]
    try:
        pictures = _draw(work, runs, predictions, samples, reporter)
    except OSError as error:
        raise WorkError(
            f"{work.report}: cannot be written ({error.strerror})", "Free space, or choose another --work."
        ) from error
    made_cards, failed = cards(work, predictions, shards)
    clips, more = clips_of(config, work, predictions, reporter)
    problems += [*failed, *more]
    page = Page(
        name=work.root.resolve().name,
        runs=tuple(runs),
        clips=tuple(clips),
        cards=tuple(made_cards),
        pictures=pictures,
        samples=tuple(samples),
        iou={fit.subject: float(fit.iou.mean()) for fit in fits},
        stn=_stn_figures(work, fits),
        weights={name: found for name in WEIGHTS if (found := weights_report(work, name)) is not None},
        missing=missing,
        remarks=tuple(_remarks(work, best, its_config, shards, boxes)),
        problems=tuple(dict.fromkeys(problems)),
        work=str(work.root),
    )
    write_text(output, write_page(page))
    record = {
        "fingerprint": key,
        "files": sorted([output.name, *(path.name for pair in pictures.values() for path in pair)]),
        "failed": [asdict(problem) for problem in page.problems],
        "facts": {"run": best.name, "runs": len(runs), **numbers_of(best.metrics), "missing": sorted(missing)},
    }
    _sweep(work.report, record["files"])
    write_text(work.report / "report.json", json.dumps(record, indent=1) + "\n")
    return _report(output, record, made=(output.name,))


def _key(config: Config, work: Work, folders: Sequence[Path]) -> str:
    """A fingerprint of all inputs by size and time. To read all features of Aff-Wild2 would take minutes."""
    names = ("metrics.jsonl", "run.json", "config.yaml", MODEL_FILE)
    read = [folder / name for folder in folders for name in names]
    read += [path for folder in folders for path in sorted(folder.glob("evaluation-*.json"))]
    read += [folder / f"predictions-{SPLIT}.csv" for folder in folders]
    read += [work.weights(name) for name in WEIGHTS] + [work.audit]
    read += [path for room in ("features", "frames") for path in sorted((work.root / room).glob("*.h5"))]
    subjects = [path.stem for path in (work.root / "features").glob("*.h5")]
    read += [path for _, path in sorted(true_boxes(work, subjects).items())]
    read += read_by(work)
    states = [[str(path), *_state(path)] for path in read]
    return fingerprint(
        version=VERSION, tool=__version__, stn=config.stn, report=config.report,
        predict=without_unset(config.predict, "fps"), assets=page_source(), name=str(work.root.resolve()), read=states,
    )  # fmt: skip


def _state(path: Path) -> tuple[int, int]:
    try:
        facts = path.stat()
    except OSError:
        return -1, -1
    return facts.st_size, facts.st_mtime_ns


def _kept(folder: Path, key: str) -> dict[str, Any] | None:
    """The last report.json, if it has this fingerprint and all files of the report are there."""
    found = read_result(folder / "report.json", key)
    return found if found and all((folder / name).is_file() for name in found.get("files", [""])) else None


def _shards(work: Work, run: Run) -> tuple[list[Cached], list[Problem]]:
    """The feature shards of the subjects on which the run is evaluated."""
    try:
        cached = cached_subjects(work)
    except (ShardError, KeyError) as error:
        text = error.problem if isinstance(error, AffectError) else f"a feature shard has no {error}"
        return [], [Problem("damaged", "features", text, "Run `affect cache-features` again.")]
    names = evaluated({name: shard.split for name, shard in cached.items()}, SPLIT, run.facts)
    return [cached[name] for name in names if name in cached], []


def _config_of(run: Run, config: Config) -> Config:
    """The settings of the run, or the current ones if the run has none that can be read."""
    try:
        return load(str(run.folder / "config.yaml"))
    except ConfigError:
        return config


def _missing(work: Work, run: Run, predictions: dict[str, Series], shards: list[Cached]) -> dict[str, str]:
    """What cannot be shown, by section, with the command that creates it."""
    at = f"--work {work.root}"
    missing = {}
    if not run.history:
        missing["curves"] = f"{run.name} has no metrics.jsonl. Run: affect train --data D {at}"
    if not any(series.valid.any() for series in predictions.values()):
        command = f"affect evaluate --data D {at}" + ("" if run.name == "default" else f" --run {run.name}")
        missing["truth"] = missing["plane"] = f"{run.name} has no predictions on {SPLIT}. Run: {command}"
    if not predicted(work):
        missing["watch"] = (
            f"No video was predicted. Run: affect predict VIDEO --model {run.folder} --out {work.root / 'predict'}"
        )
    if not any(work.frames(shard.video).is_file() for shard in shards):
        if shards:
            missing["stn"] = f"The frames of the {SPLIT} subjects are missing. Run: affect extract-frames --data D {at}"
        else:
            missing["stn"] = f"No {SPLIT} subject has cached features. Run: affect cache-features --data D {at}"
    if not work.weights("backbone").is_file():
        missing["backbone"] = f"No backbone was pretrained here. Run: affect pretrain backbone --ferplus DIR {at}"
    return missing


def _remarks(work: Work, run: Run, config: Config, shards: list[Cached], boxes: dict[str, Path]) -> list[str]:
    """Remarks that a reader needs to understand the page."""
    remarks = [
        f"Run {run.name} was trained again after its evaluation on {split}: run affect evaluate again."
        for split in run.stale
    ]
    if not run.facts:
        remarks.append(f"Run {run.name} is not finished.")
    encoder = run.facts.get("encoder")
    if shards and encoder and any(shard.encoder != encoder for shard in shards):
        remarks.append(
            f"The cached features are not those of run {run.name}: its boxes may differ from the boxes shown."
        )
    if config.stn.localiser in ("box", "none"):
        where = "the box files" if config.stn.localiser == "box" else "the whole picture"
        remarks.append(f"The crops come from {where} (stn.localiser is {config.stn.localiser}), not from an STN.")
    elif (stn := weights_report(work, "stn") or {}).get("trained") is False:
        behaviour = "returns the whole picture" if stn.get("start", SCRATCH) == SCRATCH else "keeps its initial weights"
        remarks.append(f"The STN was not trained on this data set: it {behaviour}.")
    if shards and not boxes:
        remarks.append("True boxes are not shown: the data has none, or was moved since the audit.")
    return remarks


def _stn_figures(work: Work, fits: Sequence[Fit]) -> dict[str, Any]:
    found = numbers_of(weights_report(work, "stn") or {})
    figures: dict[str, Any] = {STN_FIGURES.get(key, key): it for key, it in found.items()}
    if fits:
        every = np.concatenate([fit.iou for fit in fits])
        figures |= {
            "cached frames with a true box": len(every),
            "their mean IoU": float(every.mean()),
            "their share with an IoU of 0.5 or more": float((every >= 0.5).mean()),
        }
    return figures


def chosen_subjects(predictions: Mapping[str, Series]) -> dict[str, Series]:
    """The series of the best, the median and the worst subject by mean CCC, by title."""
    scores = {name: pooled(it.value, it.truth, it.valid)["ccc_mean"] for name, it in predictions.items()}
    order = sorted(scores, key=lambda name: (-scores[name], name))
    places = {(len(order) - 1) // 2: "Median", len(order) - 1: "Worst", 0: "Best"}
    return {f"{title}: subject {order[place]}": predictions[order[place]] for place, title in sorted(places.items())}


def _draw(
    work: Work, runs: Sequence[Run], predictions: dict[str, Series], samples: Sequence[StnSample], reporter: Reporter
) -> dict[str, tuple[Path, ...]]:
    """The pictures by section: a light one, and a dark one for dark mode."""
    from ..visualization.report import curves, figures
    from ..visualization.style import DARK, LIGHT

    folder = work.report
    backbone = weights_report(work, "backbone") or {}
    annotated = [series for series in predictions.values() if series.valid.any()]
    pictures: dict[str, list[Path]] = {}
    for theme, ending in ((LIGHT, ".png"), (DARK, "-dark.png")):
        if any(run.history for run in runs):
            pictures.setdefault("curves", []).append(curves.draw_curves(folder / f"curves{ending}", runs, theme))
        if annotated:
            chosen = chosen_subjects({series.subject: series for series in annotated})
            path = figures.draw_truth(folder / f"truth{ending}", chosen, annotated, runs[0].metrics, theme)
            pictures.setdefault("truth", []).append(path)
            pictures.setdefault("plane", []).append(figures.draw_plane(folder / f"plane{ending}", annotated, theme))
        if has_confusion(backbone):
            path = draw_confusion(backbone, folder / f"confusion{ending}", theme)
            pictures.setdefault("confusion", []).append(path)
    if samples:
        pictures["stn"] = [figures.draw_crops(folder / "stn.png", samples, LIGHT)]
    for name in pictures:
        reporter.debug(f"{STAGE}: {name}")
    return {name: tuple(paths) for name, paths in pictures.items()}


def _sweep(folder: Path, files: Sequence[str]) -> None:
    """Removes pictures of an earlier report that this report does not have."""
    for name in ("curves", "truth", "plane", "confusion", "stn"):
        for path in (folder / f"{name}.png", folder / f"{name}-dark.png"):
            if path.name not in files:
                path.unlink(missing_ok=True)


def _report(output: Path, record: dict[str, Any], **names: tuple[str, ...]) -> StageReport:
    failed = tuple(Problem(**problem) for problem in record["failed"])
    return StageReport(STAGE, output, failed=failed, facts=record["facts"], **names)
