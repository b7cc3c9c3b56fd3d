"""Training by a config: the loop with its settings, what it leaves by epoch and step, and the smoothing after."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...configs.schema import Config
from ..progress import Talk
from .runs import add_epoch

if TYPE_CHECKING:
    from ..learning.end_to_end import EndToEnd
    from ..learning.from_cache import FromCache
    from ..learning.loop import FitResult

STAGE = "train"
SCORE = "validation_ccc_mean"


def fit_run(
    way: "FromCache | EndToEnd", config: Config, folder: Path, key: str, talk: Talk, *, started: bool, writes: bool
) -> "FitResult":
    """Trains the model of a run in its folder: metrics.jsonl, TensorBoard's files if wanted, and the resume file.

    started: from another run, whose figures are epoch 0. writes: whether this process keeps the records."""
    from ..learning.board import Board

    board = Board(folder) if config.train.tensorboard and writes else None

    def on_epoch(line: dict[str, Any]) -> None:
        if writes:
            add_epoch(folder, line, 0 if started else 1)
        if board:
            board.epoch(line)

    def on_step(number: int, figures: dict[str, Any]) -> None:
        if board:
            board.step(number, figures, way.outputs.frames)

    try:
        return fit_way(
            way, config, talk,
            state=folder / "state.pt", key=key, started=started, on_epoch=on_epoch, on_step=on_step if board else None,
        )  # fmt: skip
    finally:
        if board:
            board.close()


def fit_way(
    way: "FromCache | EndToEnd",
    config: Config,
    talk: Talk,
    *,
    on_epoch: Callable[[dict[str, Any]], None],
    on_step: Callable[[int, dict[str, Any]], None] | None = None,
    state: Path | None = None,
    key: str = "",
    started: bool = False,
) -> "FitResult":
    """Trains by the config's `train` section; see `fit`. on_epoch gets its figures on the training split besides."""
    from ..learning.loop import fit

    settings = config.train

    def told(line: dict[str, Any]) -> None:
        frames = way.outputs.frames
        if line["epoch"]:
            line |= {**way.outputs.figures("train_"), "frames_per_second": frames / line["train_seconds"]}
        on_epoch(line)

    return fit(
        way.model, way.batches, way.loss, way.validate,
        groups=way.groups, epochs=settings.epochs, steps=way.steps, score=SCORE, talk=talk, title=STAGE,
        schedule=settings.schedule, warmup=settings.warmup, weight_decay=settings.weight_decay,
        gradient_clip=settings.gradient_clip, accumulate=settings.accumulate, ema=settings.ema,
        patience=settings.patience, judge_start=started, device=way.device, dtype=way.dtype,
        state=state, state_minutes=settings.state_minutes, key=key, carried=way.outputs,
        on_epoch=told, on_step=on_step,
    )  # fmt: skip


def smoothing_of(way: "FromCache | EndToEnd", config: Config, talk: Talk) -> dict[str, Any]:
    """The filter that suits the trained model's predictions on the validation split best; see choose_smoothing."""
    from ..learning.frame_tracks import predict_frames
    from ..learning.from_cache import FromCache
    from ..learning.smoothing import choose_smoothing

    clip = config.clip
    if isinstance(way, FromCache):
        values = way.predict()
    else:
        options = {"carry": clip.carry, "device": way.device, "dtype": way.dtype, "batch": config.features.batch}
        values = [predict_frames(way.model, track, clip.length, clip.hop, **options).values for track in way.judged]
    found = choose_smoothing(values, way.judged, config.smooth.kind, config.smooth.widths)
    talk.say(
        f"{STAGE}: smoothing by {found['kind']} of {found['width']} frames: mean CCC {found['ccc_mean_before']:.4f} "
        f"to {found['ccc_mean']:.4f}"
        if found["kind"] != "none"
        else f"{STAGE}: no smoothing"
    )
    return found
