"""The one training loop: every network of the pipeline is trained by `fit`.

A step: learning rate, loss, gradient, clipping, AdamW, running average. An epoch: its steps, validation, one line of
history, the state file. Whatever an epoch depends on is in the state file or follows from the epoch's number, so a run
that was stopped goes on as if it had not been.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import AffectError
from ..progress import Talk
from .run_state import RunState, blend, copied, load_state, save_state
from .runtime import autocast
from .schedule import Schedule, falls, rate_factor

ENOUGH = 20
"""Steps in a row without a finite loss or gradient after which training gives up."""


@dataclass(frozen=True)
class FitResult:
    """best_epoch counts from 1; 0 and -inf where no epoch was run. history: a dict per epoch, as given to on_epoch."""

    best_epoch: int
    best_score: float
    history: list[dict[str, Any]]


def fit(
    model: nn.Module,
    batches: Callable[[int], Iterable[Any]],
    loss: Callable[[Any], tuple[Tensor, dict[str, Any]]],
    validate: Callable[[], dict[str, float]],
    *,
    groups: Sequence[dict[str, Any]],
    epochs: int,
    steps: int,
    score: str,
    talk: Talk,
    title: str,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    schedule: Schedule = "cosine",
    warmup: float = 0.05,
    weight_decay: float = 0.01,
    gradient_clip: float = 1.0,
    ema: float = 0.0,
    patience: int | None = None,
    state: Path | None = None,
    key: str = "",
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    on_step: Callable[[int, dict[str, Any]], None] | None = None,
) -> FitResult:
    """Trains `model`, and leaves in it the weights of the epoch whose validation score was highest.

    batches(epoch): the batches of that epoch, from 1; all randomness seeded by the epoch.
    loss(batch): a scalar and its parts by name (numbers or scalar tensors); runs under autocast, model in train mode.
    validate(): figures by name, `score` among them; the model is in eval mode, without gradients, with the running
    average of the weights if ema > 0.
    groups: torch parameter groups, each with its "lr"; weight decay falls on matrices only, not on biases and norms.
    steps: batches per epoch, for the schedule.
    patience: epochs without a better score before training stops; None: never.
    state, key: the resume file, written after every epoch. One written under another key is ignored. The caller removes
    it when it has saved the model.
    on_epoch: gets {epoch, train_loss, train_<part>..., **validate(), learning_rate, gradient_norm, skipped,
    train_seconds, seconds}.
    on_step: gets the number of each step, from 1 over all epochs, and its {loss, <part>..., gradient_norm,
    learning_rate}; of a skipped step only the last.
    Raises AffectError if the loss stays infinite or NaN.
    """
    model.to(device)
    optimizer = torch.optim.AdamW(_decayed(groups, weight_decay), fused=True)
    rates = [group["lr"] for group in optimizer.param_groups]
    run = RunState(model, optimizer, copied(model.state_dict()) if ema else None)
    if state and load_state(state, key, run, device, talk):
        talk.say(f"{title}: going on after epoch {run.epoch}")

    def steer() -> None:
        factor = rate_factor(schedule, run.step, epochs * steps, warmup)
        if schedule == "plateau":
            factor *= 0.5 ** falls([line[score] for line in run.history])
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor

    with talk.track(title, total=epochs * steps, unit="steps") as tracker:
        tracker.advance(run.epoch * steps)
        while run.epoch < epochs and not (patience and run.epoch - run.best_epoch >= patience):
            run.epoch += 1
            started = time.perf_counter()
            sums = _Sums()
            model.train()
            for batch in batches(run.epoch):
                steer()
                parts = _step(run, batch, loss, gradient_clip, ema, device, dtype)
                sums.add(parts)
                if on_step:
                    on_step(run.step, {**(parts or {}), "learning_rate": optimizer.param_groups[0]["lr"]})
                if sums.in_a_row >= ENOUGH:
                    raise _diverged(title, run.epoch)
                tracker.advance()
                tracker.note(f"epoch {run.epoch}/{epochs}  loss {sums.mean('loss'):.4f}  {run.describe(score)}")
            if not sums.taken:
                raise _diverged(title, run.epoch)
            trained = time.perf_counter() - started
            tracker.advance(max(0, steps - sums.taken - sums.skipped))

            figures = _validate(run, validate)
            run.judge(figures[score])
            line = {
                "epoch": run.epoch,
                **{f"train_{name}": sums.mean(name) for name in sums.totals if name != "gradient_norm"},
                **figures,
                "learning_rate": optimizer.param_groups[0]["lr"],
                "gradient_norm": sums.mean("gradient_norm"),
                "skipped": sums.skipped,
                "train_seconds": trained,
                "seconds": time.perf_counter() - started,
            }
            run.history.append(line)
            said = f"epoch {run.epoch}/{epochs}  loss {line['train_loss']:.4f}  {score} {figures[score]:.3f}"
            skipped = f"  {sums.skipped} steps skipped" if sums.skipped else ""
            tracker.advance(0, f"{said}  {run.describe(score)}{skipped}")
            if on_epoch:
                on_epoch(line)
            if state:
                save_state(state, key, run)
    if run.best is not None:
        model.load_state_dict(run.best)
    model.eval()
    return FitResult(run.best_epoch, run.best_score, run.history)


@dataclass
class _Sums:
    """Sums over the steps of an epoch; steps that were skipped are counted only."""

    totals: dict[str, Any] = field(default_factory=dict)
    taken: int = 0
    skipped: int = 0
    in_a_row: int = 0

    def add(self, parts: dict[str, Any] | None) -> None:
        if parts is None:
            self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
            return
        self.taken, self.in_a_row = self.taken + 1, 0
        for name, part in parts.items():
            self.totals[name] = self.totals.get(name, 0.0) + (part.detach() if isinstance(part, Tensor) else part)

    def mean(self, name: str) -> float:
        return float(self.totals[name]) / self.taken if self.taken else math.nan


def _step(
    run: RunState,
    batch: Any,
    loss: Callable[[Any], tuple[Tensor, dict[str, Any]]],
    gradient_clip: float,
    ema: float,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, Any] | None:
    """One step of the optimizer; None, and nothing done, where the loss or its gradient is not finite."""
    run.step += 1
    run.optimizer.zero_grad(set_to_none=True)
    with autocast(device, dtype):
        value, parts = loss(batch)
    value.backward()
    parameters = [parameter for group in run.optimizer.param_groups for parameter in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, gradient_clip or math.inf)
    if not bool(torch.isfinite(norm) & torch.isfinite(value)):
        return None
    run.optimizer.step()
    if run.average is not None:
        blend(run.average, run.model, min(ema, run.step / (run.step + 9)))
    return {"loss": value, **parts, "gradient_norm": norm}


def _decayed(groups: Sequence[dict[str, Any]], weight_decay: float) -> list[dict[str, Any]]:
    split: list[dict[str, Any]] = []
    for group in groups:
        parameters = [parameter for parameter in group["params"] if parameter.requires_grad]
        matrices = [parameter for parameter in parameters if parameter.ndim > 1]
        rest = [parameter for parameter in parameters if parameter.ndim <= 1]
        if matrices:
            split.append({"weight_decay": weight_decay, **group, "params": matrices})
        if rest:
            split.append({**group, "params": rest, "weight_decay": 0.0})
    return split


@torch.no_grad()
def _validate(run: RunState, validate: Callable[[], dict[str, float]]) -> dict[str, float]:
    trained = copied(run.model.state_dict()) if run.average is not None else None
    if run.average is not None:
        run.model.load_state_dict(run.average)
    run.model.eval()
    figures = {name: float(figure) for name, figure in validate().items()}
    if trained is not None:
        run.model.load_state_dict(trained)
    return figures


def _diverged(title: str, epoch: int) -> AffectError:
    return AffectError(
        f"{title}: in epoch {epoch} the loss or its gradient was not finite in {ENOUGH} steps in a row, or in all",
        "Lower the learning rate, set a gradient clip, or use --set runtime.precision=fp32.",
    )
