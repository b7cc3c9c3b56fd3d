"""predict on some frames per second compared with all frames: processor time, and how far the values are apart."""

import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from affect.pipeline.inference.load import named_or_base, settings_for
from affect.pipeline.inference.offline import trace_video
from affect.pipeline.inference.predictor import Predictor
from affect.pipeline.inference.trace import TraceData
from affect.pipeline.ingest.walk import VIDEO_SUFFIXES

from .measure import QUIET, Row, draw_data
from .prediction import random_model

RATES = (15, 10, 5)
"""The videos have at most 30 frames per second, so a rate of 30 is all frames."""
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
REAL = ("tears-to-laughter.mp4", "videos/st_*", "videos/cremad_*")
"""A woman from crying to laughing, and ten acted clips."""
CLOSE = 0.03
"""Values are close if valence and arousal differ by at most this on average."""


@dataclass(frozen=True)
class Measured:
    """One video at one rate. seconds: processor time of this process and of the decoder, of all frames and at the rate.
    networks: the same without the decoder. seen: frames that the networks have seen. apart: mean absolute difference of
    valence and of arousal; NaN without a face."""

    name: str
    frames: int
    seconds: tuple[float, float]
    networks: tuple[float, float]
    seen: int
    apart: tuple[float, float]


def sampling(folder: Path, frames: int) -> Iterator[Row]:
    """The base model on some videos of ../shared/data, if they are there, and on a drawn video."""
    torch.set_num_threads(1)
    real = [path for pattern in REAL for path in sorted(DATA.glob(pattern)) if path.suffix in VIDEO_SUFFIXES]
    drawn = draw_data(folder / "data", 1, frames, width=640, height=360) / "videos" / "v0.mp4"
    model = named_or_base(None)
    predictor = Predictor(model, settings_for(model, ["runtime.device=cpu"]))
    found: dict[int, list[Measured]] = {rate: [] for rate in RATES}
    for video in real:
        for rate, measured in _measure(predictor, video).items():
            found[rate].append(measured)
            yield _one_video("real", rate, measured)
    for rate in RATES:
        if real:
            yield _all_videos(rate, found[rate])
    for rate, measured in _measure(predictor, drawn).items():
        yield _one_video("drawn", rate, measured)
    large = random_model(folder / "run", "affwild2")
    choices = ["runtime.device=cpu", "predict.face_threshold=0"]
    for video in real[1:2]:
        measured = _measure(Predictor(large, settings_for(large, choices)), video)[10]
        yield _one_video("real, network at 224 with random weights", 10, measured)


def _measure(predictor: Predictor, video: Path) -> dict[int, Measured]:
    """The video at each rate, one after the other."""
    full, whole, own_whole = _run(predictor, video)
    runs = {rate: _run(predictor.at_rate(rate), video) for rate in RATES}
    return {
        rate: Measured(
            video.name, len(trace), (whole, taken), (own_whole, own), trace.summary()["sampled"], _apart(full, trace)
        )
        for rate, (trace, taken, own) in runs.items()
    }


def _run(predictor: Predictor, video: Path) -> tuple[TraceData, float, float]:
    """(trace, seconds of processor time, the same without the decoder)."""
    children, start = _children(), time.process_time()
    trace = trace_video(predictor, video, QUIET)[0]
    own = time.process_time() - start
    return trace, own + _children() - children, own


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _apart(full: TraceData, some: TraceData) -> tuple[float, float]:
    pairs = ((full.valence, some.valence), (full.arousal, some.arousal))
    if not full.seen.any():
        return (np.nan, np.nan)
    valence, arousal = (float(np.abs(one - other).mean()) for one, other in pairs)
    return valence, arousal


def _all_videos(rate: int, videos: Sequence[Measured]) -> Row:
    whole, some = np.sum([it.seconds for it in videos], 0)
    networks = np.divide(*np.sum([it.networks for it in videos], 0))
    seen, frames = sum(it.seen for it in videos), sum(it.frames for it in videos)
    known = [it for it in videos if np.isfinite(it.apart).all()]
    valence, arousal = np.mean([it.apart for it in known], 0)
    worst = max(known, key=lambda it: max(it.apart))
    close = sum(max(it.apart) <= CLOSE for it in known)
    detail = (
        f"{networks:.2f} without the decoder; {seen / frames:.0%} of {frames:,} frames seen; "
        f"apart: valence {valence:.4f}, arousal {arousal:.4f}, "
        f"{close} of {len(known)} videos at most {CLOSE}, worst {max(worst.apart):.3f} ({worst.name})"
    )
    return Row(f"predict of {len(videos)} real videos, {rate} frames/s / all frames", whole / some, "times", detail)


def _one_video(kind: str, rate: int, it: Measured) -> Row:
    networks = it.networks[0] / it.networks[1]
    detail = (
        f"{networks:.2f} without the decoder; {it.seen} of {it.frames} frames seen; apart: valence {it.apart[0]:.4f}, "
        f"arousal {it.apart[1]:.4f}"
    )
    return Row(f"{it.name} ({kind}), {rate} frames/s / all frames", it.seconds[0] / it.seconds[1], "times", detail)
