"""The speed of predict, the peak memory for a longer video, and the start-up time of commands."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from affect.configs.schema import dump, load
from affect.models.affect_net import AffectNet
from affect.models.backbone import Backbone
from affect.models.head import HeadSettings, TemporalHead
from affect.models.stn import SpatialTransformer
from affect.pipeline.learning.model_file import NAME, save_model
from affect.pipeline.records import Work
from affect.pipeline.stages.audit import audit

from .measure import QUIET, Row, affect, children_seconds, draw_data, seconds

SHORT_FRAMES = 100
"""Length of the shorter one of the two videos."""


def memory(folder: Path, frames: int) -> Iterator[Row]:
    """Compares the peak memory of predict and cache-features for a video and one that is ten times as long."""
    peaks: dict[str, list[int]] = {"predict": [], "cache-features": []}
    model = random_model(folder / "run", "demo")
    for times in (1, 10):
        data = draw_data(folder / "data", 1, times * SHORT_FRAMES, width=640, height=360)
        work, out = folder / "work", folder / "out"
        for finished in (work, out):
            shutil.rmtree(finished, ignore_errors=True)  # otherwise the commands have nothing to do
        options = ("--quiet", "--config", "demo", "--set", "runtime.workers=0")
        video = data / "videos" / "v0.mp4"
        peaks["predict"].append(affect("predict", video, "--model", model, "--out", out, "--quiet", "--no-plot")[1])
        affect("audit", "--data", data, "--work", work, *options)
        choices = ("--set", "backbone.weights=scratch", "--set", "adapt.epochs=0")
        peaks["cache-features"].append(affect("cache-features", "--data", data, "--work", work, *options, *choices)[1])
    for name, (short, long) in peaks.items():
        lengths = f"{SHORT_FRAMES} and {10 * SHORT_FRAMES} frames"
        detail = f"{short / 2**20:.0f} and {long / 2**20:.0f} MiB of the largest process, {lengths}"
        yield Row(f"peak memory of {name}, video ten times as long", long / short, "times", detail, "<= 1.05")


def predict(folder: Path, frames: int) -> Iterator[Row]:
    """predict of a 640 x 360 video with the full ResNet-50 at 224, on all cores."""
    data = draw_data(folder / "data", 1, frames, width=640, height=360)
    tiny = draw_data(folder / "tiny", 1, 8, width=640, height=360)
    model = random_model(folder / "run", "affwild2")
    options = ("--model", model, "--out", folder / "out", "--quiet", "--no-plot")
    shutil.rmtree(folder / "out", ignore_errors=True)
    start_seconds, _ = affect("predict", tiny / "videos" / "v0.mp4", *options)
    elapsed, peak = affect("predict", data / "videos" / "v0.mp4", *options)
    detail = f"{peak / 2**20:.0f} MiB; without the start, {start_seconds:.1f} s"
    yield Row(
        "predict of 640 x 360, network at 224", (frames - 8) / (elapsed - start_seconds), "frames/s", detail,
        ">= 30 on 4 cores with bf16",
    )  # fmt: skip


def start(folder: Path, frames: int) -> Iterator[Row]:
    """The time of `affect --help`, of predict until it has results, and of an audit of as many subjects as Aff-Wild2
    has."""
    fastest = min(affect("--help")[0] for _ in range(5))
    yield Row("affect --help", fastest, "s", "including a wrapper process", "<= 0.3")
    tiny = draw_data(folder / "tiny", 1, 8, width=640, height=360) / "videos" / "v0.mp4"
    for model, name in (("base", "base model"), (random_model(folder / "run", "affwild2"), "network at 224")):
        options = ("--model", model, "--out", folder / "out", "--quiet", "--no-plot")
        elapsed, core = [], []
        for _ in range(3):
            shutil.rmtree(folder / "out", ignore_errors=True)
            before = children_seconds()
            elapsed.append(affect("predict", tiny, *options)[0])
            core.append(children_seconds() - before)
        detail = f"{min(core):.2f} s of CPU time; with imports, model and tables"
        yield Row(f"predict of 8 frames, {name}", min(elapsed), "s", detail, "<= 4")
    data = draw_data(folder / "data", 1, 16, width=64, height=64)
    video = data / "videos" / "v0.mp4"
    rows = "valence,arousal\n" + "0.1403,-0.072\n" * 5050
    for number in range(594):
        (data / "videos" / f"n{number}.mp4").write_bytes(video.read_bytes())
        (data / "annotations" / "VA_Set" / "Train_Set" / f"n{number}.txt").write_text(rows, encoding="utf-8")
    config, work = load("demo"), Work(folder / "work")
    work.audit.unlink(missing_ok=True)
    elapsed = seconds(lambda: audit(config, data, work, QUIET))
    detail = "all are refused, because their videos have 16 frames"
    yield Row("audit of 594 subjects with 3 million rows, cold", elapsed, "s", detail, "<= 20")


def random_model(folder: Path, config: str) -> Path:
    """A run folder with random weights, with the sizes of this config."""
    chosen = load(config)
    stn = SpatialTransformer(**chosen.stn.model_dump(include={"kind", "view", "crop", "margin"}))
    net = AffectNet(stn, Backbone(), TemporalHead(2048, HeadSettings(**chosen.head.model_dump()))).eval()
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder / NAME, net, fingerprint="f", encoder="e", config=chosen.model_dump(mode="json"))
    (folder / "config.yaml").write_text(dump(chosen), encoding="utf-8")
    return folder
