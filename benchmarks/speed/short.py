"""predict over a folder of short videos, compared with the networks alone and with one long video."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from affect.pipeline.inference.load import named_or_base, settings_for
from affect.pipeline.inference.predictor import Predictor
from affect.pipeline.ingest.video.decode import decoded

from .measure import Row, affect, children_seconds, draw_data, lengthen, median, seconds

CLIP_FRAMES = 75
"""3 seconds at 25 frames per second."""
DRAWN = 4
"""Different clips. The others are copies of them."""
TURNS = 5


def short(folder: Path, frames: int) -> Iterator[Row]:
    """predict of `frames` / 2 clips of 3 seconds with the base model, of one video with as many frames, and the
    networks alone on as many frames of a clip from memory. The time for one clip of 8 frames is the start, and is left
    out."""
    count = frames // 2
    clips, long = _clips(folder, count)
    tiny = draw_data(folder / "tiny", 1, 8, width=640, height=360) / "videos" / "v0.mp4"
    out = folder / "out"

    def predict(source: Path, *options: str) -> float:
        shutil.rmtree(out, ignore_errors=True)
        return affect("predict", source, "--out", out, "--quiet", *options)[0]

    start = min(predict(tiny, "--no-plot") for _ in range(2))
    networks = _network_seconds(clips / "c000.mp4") * count
    whole = predict(long, "--no-plot") - start
    for options, what in (
        (["--no-plot"], "tables"),
        ([], "tables and plots"),
        (["--report"], "tables, plots and pages"),
    ):
        before = children_seconds()
        elapsed = predict(clips, *options) - start
        core = children_seconds() - before
        detail = f"{count} clips: {elapsed:.1f} s, {core:.1f} s of CPU time; "
        detail += f"networks alone {networks:.1f} s, start {start:.1f} s"
        target = "<= 0.15" if what == "tables and plots" else ""
        yield Row(
            f"short clips, {what}: share of time outside the networks", 1 - networks / elapsed, "", detail, target
        )
        yield Row("  / one long video with tables", elapsed / whole, "times", f"{whole:.1f} s")


def _clips(folder: Path, count: int) -> tuple[Path, Path]:
    """A folder of clips, and a video with as many frames as all of them."""
    drawn = sorted((draw_data(folder / "data", DRAWN, CLIP_FRAMES, width=640, height=360) / "videos").glob("*.mp4"))
    clips, long = folder / f"clips-{count}", folder / f"long-{count}.mp4"
    if not clips.is_dir():
        lengthen(drawn[0], long, count * CLIP_FRAMES)
        clips.mkdir()
        for number in range(count):
            shutil.copy(drawn[number % DRAWN], clips / f"c{number:03}.mp4")
    return clips, long


def _network_seconds(clip: Path) -> float:
    """Seconds of the networks for the frames of one clip from memory, the median of some turns."""
    model = named_or_base(None)
    predictor = Predictor(model, settings_for(model))
    pixels = decoded(clip, predictor.size, lambda decoding: np.concatenate([it.pixels for it in decoding]))

    def run() -> None:
        reader = predictor.offline_reader()
        outputs = predictor.encode_pixels(pixels, 640, 360)
        reader.push(outputs.feature)
        reader.finish()

    run()
    return median([seconds(run) for _ in range(TURNS)])
