"""Trains the model of a run with the settings of a config, and chooses the smoothing."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...configs.schema import Config
from ..progress import Reporter
from .folder import add_epoch

if TYPE_CHECKING:
    from ..learning.end_to_end import EndToEnd
    from ..learning.from_cache import FromCache
    from ..learning.loop import FitResult

STAGE = "train"
STATE = "state.pt"
"""The file in the folder of a run from which an interrupted training continues."""
SCORE = "validation_ccc_mean"


def fit_run(
    task: "FromCache | EndToEnd",
    config: Config,
    folder: Path,
    key: str,
    reporter: Reporter,
    *,
    started: bool,
    writes: bool,
) -> "FitResult":
    """Trains the model of a run. Writes metrics.jsonl, the resume file and, if set, TensorBoard files into its folder.

    started: the model starts from another run, whose metrics are epoch 0. writes: whether this process writes files."""
    from ..learning.tensorboard import Board

    board = Board(folder) if config.train.tensorboard and writes else None

    def on_epoch(line: dict[str, Any]) -> None:
        if writes:
            add_epoch(folder, line, 0 if started else 1)
        if board:
            board.epoch(line)

    def on_step(number: int, figures: dict[str, Any]) -> None:
        if board:
            board.step(number, figures, task.outputs.frames)

    try:
        return fit_task(
            task, config, reporter,
            state=folder / STATE, key=key, started=started, on_epoch=on_epoch, on_step=on_step if board else None,
        )  # fmt: skip
    finally:
        if board:
            board.close()


def fit_task(
    task: "FromCache | EndToEnd",
    config: Config,
    reporter: Reporter,
    *,
    on_epoch: Callable[[dict[str, Any]], None],
    on_step: Callable[[int, dict[str, Any]], None] | None = None,
    state: Path | None = None,
    key: str = "",
    started: bool = False,
) -> "FitResult":
    """Trains with the `train` settings; see `fit`. on_epoch also gets the metrics on the training split."""
    from ..learning.loop import Callbacks, FitSettings, ResumeFile, fit

    settings = config.train

    def add_training_metrics(line: dict[str, Any]) -> None:
        frames = task.outputs.frames
        if line["epoch"]:
            line |= {**task.outputs.figures("train_"), "frames_per_second": frames / line["train_seconds"]}
        on_epoch(line)

    fit_settings = FitSettings(
        score=SCORE, epochs=settings.epochs, schedule=settings.schedule, warmup=settings.warmup,
        weight_decay=settings.weight_decay, gradient_clip=settings.gradient_clip, accumulate=settings.accumulate,
        ema=settings.ema, patience=settings.patience, validate_start=started,
    )  # fmt: skip
    resume = ResumeFile(state, key, settings.state_minutes, task.outputs) if state else None
    return fit(
        task,
        fit_settings,
        task.compute,
        reporter,
        STAGE,
        resume=resume,
        callbacks=Callbacks(add_training_metrics, on_step),
    )


def smoothing_of(task: "FromCache | EndToEnd", config: Config, reporter: Reporter) -> dict[str, Any]:
    """Chooses the best filter for the predictions on the validation split; see choose_smoothing."""
    from ..learning.from_cache import FromCache
    from ..learning.smoothing import choose_smoothing

    values = (
        task.predict()
        if isinstance(task, FromCache)
        else [task.predict(track).values for track in task.validation_tracks]
    )
    found = choose_smoothing(values, task.validation_tracks, config.smooth.kind, config.smooth.widths)
    reporter.info(
        f"{STAGE}: {found['kind']} smoothing over {found['width']} frames: "
        f"mean CCC {found['ccc_mean_before']:.4f} to {found['ccc_mean']:.4f}"
        if found["kind"] != "none"
        else f"{STAGE}: no smoothing"
    )
    return found
