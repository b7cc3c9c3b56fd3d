"""The one training loop: every network of the pipeline is trained by `fit`.

A step: learning rate, loss and gradient of one or more batches, clipping, AdamW, running average. An epoch: its steps,
validation, one line of history, the state file. Whatever a step depends on is in the state file or follows from the
epoch's number, so a run that was stopped goes on as if it had not been. Started by torchrun, several processes share
each batch (see distributed).
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
from ..progress import Talk
from .distributed import add_gradients, agreed
from .run_state import Carried, RunState, Sums, blend, copied, load_state, save_state
from .runtime import autocast
from .schedule import Schedule, falls, rate_factor

ENOUGH = 20
"""Steps in a row without a finite loss or gradient after which training gives up."""
Loss = Callable[[Any], tuple[Tensor, dict[str, Any]]]


@runtime_checkable
class Skips(Protocol):
    """Batches that can be taken up in the middle without making those before."""

    def after(self, first: int) -> Iterable[Any]: ...


@dataclass(frozen=True)
class FitResult:
    """best_epoch counts from 1; 0 where the weights it started from were judged and not surpassed, and, with a score of
    -inf, where no epoch was run. history: a dict per epoch, as given to on_epoch. last: the last epoch's weights."""

    best_epoch: int
    best_score: float
    history: list[dict[str, Any]]
    last: dict[str, Tensor] = field(repr=False)


def fit(
    model: nn.Module,
    batches: Callable[[int], Iterable[Any]],
    loss: Loss,
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
    accumulate: int = 1,
    ema: float = 0.0,
    patience: int | None = None,
    judge_start: bool = False,
    state: Path | None = None,
    state_minutes: float = math.inf,
    key: str = "",
    carried: Carried | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    on_step: Callable[[int, dict[str, Any]], None] | None = None,
) -> FitResult:
    """Trains `model`, and leaves in it the weights of the epoch whose validation score was highest.

    batches(epoch): the batches of that epoch, from 1; all randomness seeded by the epoch.
    loss(batch): a scalar and its parts by name (numbers or scalar tensors); runs under autocast, model in train mode.
    validate(): figures by name, `score` among them; the model is in eval mode, without gradients, with the running
    average of the weights if ema > 0.
    groups: torch parameter groups, each with its "lr", and maybe "from_epoch", the first in which it learns; weight
    decay falls on matrices only, not on biases and norms.
    steps: batches per epoch, for the schedule.
    accumulate: batches per step of the optimizer, whose gradients are averaged.
    patience: epochs without a better score before training stops; None: never.
    judge_start: the weights it starts from are validated too, as epoch 0, and may be the best.
    state, key: the resume file, written after every epoch and, within one, every `state_minutes`. One written under
    another key is ignored. The caller removes it when it has saved the model. carried: goes with it.
    on_epoch: gets {epoch, train_loss, train_<part>..., **validate(), learning_rate, gradient_norm, skipped,
    train_seconds, seconds}; of epoch 0, what there is.
    on_step: gets the number of each step, from 1 over all epochs, and its {loss, <part>..., gradient_norm,
    learning_rate}; of a skipped step only the last.
    Raises AffectError if the loss stays infinite or NaN.
    """
    model.to(device)
    optimizer = torch.optim.AdamW(_decayed(groups, weight_decay), fused=True)
    rates = [group["lr"] for group in optimizer.param_groups]
    run = RunState(model, optimizer, copied(model.state_dict()) if ema else None, carried=carried)
    strides = -(-steps // accumulate)
    if state and load_state(state, key, run, device, talk):
        within = f", within epoch {run.epoch + 1}" if run.batch else ""
        talk.say(f"{title}: going on after epoch {run.epoch}{within}")
    saved = time.perf_counter()

    def steer() -> None:
        factor = rate_factor(schedule, run.step, epochs * strides, warmup)
        if schedule == "plateau":
            factor *= 0.5 ** falls([line[score] for line in run.history])
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor

    def save() -> None:
        nonlocal saved
        if state:
            save_state(state, key, run, device)
            saved = time.perf_counter()

    def record(line: dict[str, Any], said: str) -> None:
        run.judge(line[score])
        run.history.append(line)
        tracker.advance(0, f"{said}  {score} {line[score]:.3f}  {run.describe(score)}")
        if on_epoch:
            on_epoch(line)
        save()

    with talk.track(title, total=epochs * strides, unit="steps") as tracker:
        tracker.advance(run.epoch * strides + run.batch // accumulate)
        if judge_start and not run.history and not run.step:
            started = time.perf_counter()
            figures = _validate(run, validate)
            record({"epoch": 0, **figures, "seconds": time.perf_counter() - started}, "the start")
        while run.epoch < epochs and not (patience and run.epoch - run.best_epoch >= patience):
            epoch, sums = run.epoch + 1, run.sums
            started = time.perf_counter() - sums.seconds
            _thaw(optimizer, epoch)
            model.train()
            for some in _grouped(_after(batches(epoch), run.batch), accumulate):
                steer()
                parts = _step(run, some, loss, gradient_clip, ema, device, dtype)
                sums.add(parts)
                run.batch += len(some)
                if on_step:
                    on_step(run.step, {**(parts or {}), "learning_rate": optimizer.param_groups[0]["lr"]})
                if sums.in_a_row >= ENOUGH:
                    raise _diverged(title, epoch)
                sums.seconds = time.perf_counter() - started
                if state and agreed(time.perf_counter() - saved >= 60 * state_minutes, device):
                    save()
                tracker.advance()
                rate, norm = optimizer.param_groups[0]["lr"], sums.mean("gradient_norm")
                now = f"loss {sums.mean('loss'):.4f}  lr {rate:.1e}  gradient {norm:.2f}"
                tracker.note(f"epoch {epoch}/{epochs}  {now}  {run.describe(score)}")
            if not sums.taken:
                raise _diverged(title, epoch)
            trained = time.perf_counter() - started
            tracker.advance(max(0, strides - sums.taken - sums.skipped))

            figures = _validate(run, validate)
            run.epoch, run.batch, run.sums = epoch, 0, Sums()
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
    last = copied(run.weights)
    if run.best is not None:
        model.load_state_dict(run.best)
    model.eval()
    return FitResult(run.best_epoch, run.best_score, run.history, last)


def _step(
    run: RunState,
    batches: Sequence[Any],
    loss: Loss,
    gradient_clip: float,
    ema: float,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, Any] | None:
    """One step of the optimizer; None, and nothing done, where the loss or its gradient is not finite."""
    run.step += 1
    run.optimizer.zero_grad(set_to_none=True)
    sums: dict[str, Any] = {}
    for batch in batches:
        with autocast(device, dtype):
            value, parts = loss(batch)
        (value / len(batches)).backward()
        for name, part in {"loss": value.detach(), **parts}.items():
            sums[name] = sums.get(name, 0.0) + (part.detach() if isinstance(part, Tensor) else part) / len(batches)
    parameters = [parameter for group in run.optimizer.param_groups for parameter in group["params"]]
    add_gradients(parameters)
    norm = nn.utils.clip_grad_norm_(parameters, gradient_clip or math.inf)
    if not bool(torch.isfinite(norm) & torch.isfinite(sums["loss"])):
        return None
    run.optimizer.step()
    if run.average is not None:
        blend(run.average, run.model, min(ema, run.step / (run.step + 9)))
    return {**sums, "gradient_norm": norm}


def _after(batches: Iterable[Any], first: int) -> Iterable[Any]:
    """The batches from number `first` on; those before are not even made, where that can be."""
    return batches.after(first) if isinstance(batches, Skips) else islice(batches, first, None)


def _grouped(batches: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` batches; the last one may be shorter."""
    iterator = iter(batches)
    while some := list(islice(iterator, size)):
        yield some


def _thaw(optimizer: torch.optim.Optimizer, epoch: int) -> None:
    """Lets those groups learn whose time has come, and no others."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.requires_grad_(epoch >= group.get("from_epoch", 1))


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
