"""The training loop: `fit` trains every network of the pipeline.

A step: learning rate, loss and gradient of one or more batches, clipping, AdamW, running average. An epoch: its steps,
validation, one line of history, the state file. A step depends only on the state file and the number of the epoch, so a
resumed run gives the same result as an uninterrupted run. With torchrun, several processes share each batch (see
distributed).
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..errors import AffectError
from ..progress import Reporter
from .distributed import add_gradients, broadcast_flag
from .parameter_groups import split_by_decay, unfreeze
from .run_state import EpochStats, RunState, Stateful, clone_state, ema_update, load_state, save_state
from .runtime import Compute
from .schedule import Schedule, count_halvings, rate_factor

MAX_BAD_STEPS = 20
"""Training stops after this many consecutive steps without a finite loss and gradient."""
Loss = Callable[[Any], tuple[Tensor, dict[str, Any]]]


@runtime_checkable
class Skips(Protocol):
    """Batches that can start in the middle of the epoch without making the earlier ones."""

    def after(self, first: int) -> Iterable[Any]: ...


@dataclass(frozen=True)
class FitResult:
    """best_epoch: from 1; 0 if the starting weights were validated and are the best, or if no epoch was run (then the
    score is -inf). history: a dict per epoch, as passed to on_epoch. last: weights of the last epoch."""

    best_epoch: int
    best_score: float
    history: list[dict[str, Any]]
    last: dict[str, Tensor] = field(repr=False)


class Task(Protocol):
    """A model to train. batches(epoch): the batches of an epoch, counted from 1; the epoch seeds all randomness.
    loss(batch): a scalar and its parts by name (numbers or scalar tensors); runs under autocast, model in train mode.
    validate(): metrics by name; the model is in eval mode, without gradients, and has the running average of the
    weights if there is one. groups: torch parameter groups, each with "lr" and optionally "from_epoch", the first epoch
    in which it is trained. steps: batches per epoch, for the schedule.
    """

    @property
    def model(self) -> nn.Module: ...
    @property
    def groups(self) -> Sequence[dict[str, Any]]: ...
    @property
    def steps(self) -> int: ...
    def batches(self, epoch: int, /) -> Iterable[Any]: ...
    def loss(self, batch: Any, /) -> tuple[Tensor, dict[str, Any]]: ...
    def validate(self) -> dict[str, float]: ...


@dataclass(frozen=True)
class SimpleTask:
    """A Task made of functions."""

    model: nn.Module
    batches: Callable[[int], Iterable[Any]]
    loss: Loss
    validate: Callable[[], dict[str, float]]
    groups: Sequence[dict[str, Any]]
    steps: int


@dataclass(frozen=True)
class FitSettings:
    """How a task is trained. The values come from configs/schema.py or the stage.

    score: the metric that chooses the best epoch. warmup: share of the steps in which the learning rate rises.
    weight_decay: of matrices only, not of biases and norms. gradient_clip: 0 for none. accumulate:
    batches per optimizer step; their gradients are averaged. ema: decay of the running average of the weights, 0 for
    none. patience: epochs without a better score before training stops; None: never. validate_start: also validate the
    starting weights, as epoch 0; they may be the best.
    """

    score: str
    epochs: int
    ema: float
    warmup: float
    weight_decay: float
    gradient_clip: float
    schedule: Schedule
    accumulate: int = 1
    patience: int | None = None
    validate_start: bool = False


@dataclass(frozen=True)
class ResumeFile:
    """The state file of an interrupted training, written after each epoch and every `minutes` within an epoch. A file
    with another key is ignored. The caller removes the file after saving the model. extra: also saved in it."""

    path: Path
    key: str
    minutes: float = math.inf
    extra: Stateful | None = None


@dataclass(frozen=True)
class Callbacks:
    """on_epoch: receives {epoch, train_loss, train_<part>..., **validate(), learning_rate, gradient_norm, skipped,
    train_seconds, seconds}; for epoch 0 only epoch, validate() and seconds. on_step: receives the number of each step,
    from 1 over all epochs, and {loss, <part>..., gradient_norm, learning_rate}; for a skipped step only
    learning_rate."""

    on_epoch: Callable[[dict[str, Any]], None] | None = None
    on_step: Callable[[int, dict[str, Any]], None] | None = None


def fit(
    task: Task,
    settings: FitSettings,
    compute: Compute,
    reporter: Reporter,
    title: str,
    *,
    resume: ResumeFile | None = None,
    callbacks: Callbacks = Callbacks(),
) -> FitResult:
    """Trains `task.model`. At the end, the model has the weights of the epoch with the highest validation score.

    title: of the progress bar. Raises AffectError if the loss stays infinite or NaN.
    """
    model, steps, epochs = task.model, task.steps, settings.epochs
    accumulate, ema, score = settings.accumulate, settings.ema, settings.score
    on_epoch, on_step = callbacks.on_epoch, callbacks.on_step
    state, key = (resume.path, resume.key) if resume else (None, "")
    carried, minutes = (resume.extra, resume.minutes) if resume else (None, math.inf)
    device = compute.device
    model.to(device)
    optimizer = torch.optim.AdamW(split_by_decay(task.groups, settings.weight_decay), fused=True)
    rates = [group["lr"] for group in optimizer.param_groups]
    run = RunState(model, optimizer, clone_state(model.state_dict()) if ema else None, carried=carried)
    optimizer_steps = -(-steps // accumulate)
    if state and load_state(state, key, run, device, reporter):
        within = f", within epoch {run.epoch + 1}" if run.batch else ""
        reporter.info(f"{title}: resuming after epoch {run.epoch}{within}")
    saved = time.perf_counter()

    def set_lr() -> None:
        factor = rate_factor(settings.schedule, run.step, epochs * optimizer_steps, settings.warmup)
        if settings.schedule == "plateau":
            factor *= 0.5 ** count_halvings([line[score] for line in run.history])
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor

    def save() -> None:
        nonlocal saved
        if state:
            save_state(state, key, run, device)
            saved = time.perf_counter()

    def record(line: dict[str, Any], message: str) -> None:
        run.update_best(line[score])
        run.history.append(line)
        tracker.advance(0, f"{message}  {score} {line[score]:.3f}  {run.describe(score)}")
        if on_epoch:
            on_epoch(line)
        save()

    with reporter.progress(title, total=epochs * optimizer_steps, unit="steps") as tracker:
        tracker.advance(run.epoch * optimizer_steps + run.batch // accumulate)
        if settings.validate_start and not run.history and not run.step:
            started = time.perf_counter()
            figures = _validate(run, task.validate)
            record({"epoch": 0, **figures, "seconds": time.perf_counter() - started}, "the start")
        while run.epoch < epochs and not (settings.patience and run.epoch - run.best_epoch >= settings.patience):
            epoch, sums = run.epoch + 1, run.sums
            started = time.perf_counter() - sums.seconds
            unfreeze(optimizer, epoch)
            model.train()
            for group in _grouped(_after(task.batches(epoch), run.batch), accumulate):
                set_lr()
                parts = _step(run, group, task.loss, settings, compute)
                sums.add(parts)
                run.batch += len(group)
                if on_step:
                    on_step(run.step, {**(parts or {}), "learning_rate": optimizer.param_groups[0]["lr"]})
                if sums.in_a_row >= MAX_BAD_STEPS:
                    raise _diverged(title, epoch)
                sums.seconds = time.perf_counter() - started
                if state and broadcast_flag(time.perf_counter() - saved >= 60 * minutes, device):
                    save()
                tracker.advance()
                rate, norm = optimizer.param_groups[0]["lr"], sums.mean("gradient_norm")
                status = f"loss {sums.mean('loss'):.4f}  lr {rate:.1e}  gradient {norm:.2f}"
                tracker.note(f"epoch {epoch}/{epochs}  {status}  {run.describe(score)}")
            if not sums.taken:
                raise _diverged(title, epoch)
            trained = time.perf_counter() - started
            tracker.advance(max(0, optimizer_steps - sums.taken - sums.skipped))

            figures = _validate(run, task.validate)
            run.epoch, run.batch, run.sums = epoch, 0, EpochStats()
            line = {
                "epoch": epoch,
                **{f"train_{name}": sums.mean(name) for name in sums.totals if name != "gradient_norm"},
                **figures,
                "learning_rate": optimizer.param_groups[0]["lr"],
                "gradient_norm": sums.mean("gradient_norm"),
                "skipped": sums.skipped,
                "train_seconds": trained,
                "seconds": time.perf_counter() - started,
            }
            skipped = f"  {sums.skipped} steps skipped" if sums.skipped else ""
            record(line, f"epoch {epoch}/{epochs}  loss {line['train_loss']:.4f}{skipped}")
    last = clone_state(run.weights)
    if run.best is not None:
        model.load_state_dict(run.best)
    model.eval()
    return FitResult(run.best_epoch, run.best_score, run.history, last)


def _step(
    run: RunState, batches: Sequence[Any], loss: Loss, settings: FitSettings, compute: Compute
) -> dict[str, Any] | None:
    """One optimizer step. Returns None and changes nothing if the loss or its gradient is not finite."""
    run.step += 1
    run.optimizer.zero_grad(set_to_none=True)
    sums: dict[str, Any] = {}
    for batch in batches:
        with compute.autocast():
            value, parts = loss(batch)
        (value / len(batches)).backward()
        for name, part in {"loss": value.detach(), **parts}.items():
            sums[name] = sums.get(name, 0.0) + (part.detach() if isinstance(part, Tensor) else part) / len(batches)
    parameters = [parameter for group in run.optimizer.param_groups for parameter in group["params"]]
    add_gradients(parameters)
    norm = nn.utils.clip_grad_norm_(parameters, settings.gradient_clip or math.inf)
    if not bool(torch.isfinite(norm) & torch.isfinite(sums["loss"])):
        return None
    run.optimizer.step()
    if run.average is not None:
        ema_update(run.average, run.model, min(settings.ema, run.step / (run.step + 9)))
    return {**sums, "gradient_norm": norm}


def _after(batches: Iterable[Any], first: int) -> Iterable[Any]:
    """The batches from number `first` on. If possible, the earlier batches are not made."""
    return batches.after(first) if isinstance(batches, Skips) else islice(batches, first, None)


def _grouped(batches: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` batches; the last one may be shorter."""
    iterator = iter(batches)
    while group := list(islice(iterator, size)):
        yield group


@torch.no_grad()
def _validate(run: RunState, validate: Callable[[], dict[str, float]]) -> dict[str, float]:
    trained = clone_state(run.model.state_dict()) if run.average is not None else None
    if run.average is not None:
        run.model.load_state_dict(run.average)
    run.model.eval()
    figures = {name: float(figure) for name, figure in validate().items()}
    if trained is not None:
        run.model.load_state_dict(trained)
    return figures


def _diverged(title: str, epoch: int) -> AffectError:
    return AffectError(
        f"{title}: in epoch {epoch}, the loss or its gradient was not finite in {MAX_BAD_STEPS} consecutive "
        "steps or in every step",
        "Reduce the learning rate, set train.gradient_clip, or use --set runtime.precision=fp32.",
    )
