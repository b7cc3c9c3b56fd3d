"""The one training loop: every network of the pipeline is trained by `fit`.

A step: learning rate, loss, gradient, clipping, AdamW, running average. An epoch: its steps, validation, one line of
history, the state file. Whatever an epoch depends on is in the state file or follows from the epoch's number, so a run
that was stopped goes on as if it had not been.
"""

import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import AffectError
from ..progress import Talk
from .runtime import autocast

Schedule = Literal["cosine", "one-cycle", "plateau", "constant"]
ENOUGH = 20
"""Steps in a row without a finite loss or gradient after which training gives up."""


@dataclass(frozen=True)
class FitResult:
    """best_epoch counts from 1; 0 and -inf where no epoch was run. history: a dict per epoch, as given to on_epoch."""

    best_epoch: int
    best_score: float
    history: list[dict[str, Any]]


@dataclass
class _Progress:
    """All that a resumed run needs beside the weights, the optimizer and the random state."""

    epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_score: float = -math.inf
    history: list[dict[str, Any]] = field(default_factory=list)


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
    Raises AffectError if the loss stays infinite or NaN.
    """
    model.to(device)
    optimizer = torch.optim.AdamW(_decayed(groups, weight_decay))
    rates = [group["lr"] for group in optimizer.param_groups]
    average = _copy(model) if ema else None
    best: dict[str, Tensor] | None = None
    at = _Progress()
    kept = _read_state(state, key, device, talk) if state else None
    if kept:
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        average, best = kept["average"], kept["best"]
        at = _Progress(**kept["progress"])
        _restore_random(kept["random"])
        talk.say(f"{title}: going on after epoch {at.epoch}")

    with talk.track(title, total=epochs * steps, unit="steps") as tracker:
        tracker.advance(at.epoch * steps)
        while at.epoch < epochs and not (patience and at.epoch - at.best_epoch >= patience):
            at.epoch += 1
            started = time.perf_counter()
            sums: dict[str, Any] = {}
            taken = skipped = in_a_row = 0
            norms = 0.0
            falls = _falls(at.history, score) if schedule == "plateau" else 0
            factor = 0.0
            model.train()
            for batch in batches(at.epoch):
                factor = rate_factor(schedule, at.step, epochs * steps, warmup) * 0.5**falls
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * factor
                at.step += 1
                optimizer.zero_grad(set_to_none=True)
                with autocast(device, dtype):
                    value, parts = loss(batch)
                value.backward()
                norm = nn.utils.clip_grad_norm_(_parameters(optimizer), gradient_clip or math.inf).item()
                if not (math.isfinite(norm) and math.isfinite(value.item())):
                    skipped, in_a_row = skipped + 1, in_a_row + 1
                    if in_a_row >= ENOUGH:
                        raise _diverged(title, at.epoch)
                    tracker.advance()
                    continue
                optimizer.step()
                if average is not None:
                    _average(average, model, min(ema, at.step / (at.step + 9)))
                for name, part in {"loss": value, **parts}.items():
                    sums[name] = sums.get(name, 0.0) + (part.detach() if isinstance(part, Tensor) else part)
                taken, in_a_row, norms = taken + 1, 0, norms + norm
                tracker.advance()
                tracker.note(f"epoch {at.epoch}/{epochs}  loss {float(sums['loss']) / taken:.4f}  {_best(at, score)}")
            if not taken:
                raise _diverged(title, at.epoch)
            trained = time.perf_counter() - started
            tracker.advance(max(0, steps - taken - skipped))

            figures = {name: float(figure) for name, figure in _validate(model, average, validate).items()}
            line = {
                "epoch": at.epoch,
                **{f"train_{name}": float(total) / taken for name, total in sums.items()},
                **figures,
                "learning_rate": rates[0] * factor,
                "gradient_norm": norms / taken,
                "skipped": skipped,
                "train_seconds": trained,
                "seconds": time.perf_counter() - started,
            }
            at.history.append(line)
            if best is None or figures[score] > at.best_score:
                at.best_score = figures[score] if math.isfinite(figures[score]) else -math.inf
                at.best_epoch = at.epoch
                best = {name: value.clone() for name, value in (average or model.state_dict()).items()}
            said = f"epoch {at.epoch}/{epochs}  loss {line['train_loss']:.4f}  {score} {figures[score]:.3f}"
            tracker.advance(0, f"{said}  {_best(at, score)}" + (f"  {skipped} steps skipped" if skipped else ""))
            if on_epoch:
                on_epoch(line)
            if state:
                _write_state(state, key, model, optimizer, average, best, at)
    if best is not None:
        model.load_state_dict(best)
    model.eval()
    return FitResult(at.best_epoch, at.best_score, at.history)


def rate_factor(schedule: Schedule, step: int, total: int, warmup: float) -> float:
    """What the learning rate is multiplied by at a step (from 0), in [0, 1].

    cosine: a straight rise over the share `warmup`, then half a cosine down to 0.
    one-cycle: half a cosine up from 1/25 over `warmup` or 0.3, whichever is more, then half a cosine down to 1e-4.
    plateau and constant: the rise only; plateau is halved by `fit` after 3 epochs without a better score.
    """
    total = max(total, 1)
    share = max(warmup, 0.3) if schedule == "one-cycle" else warmup
    rise = round(share * total)
    if step < rise:
        gone = (step + 1) / rise
        return gone if schedule != "one-cycle" else 0.04 + 0.96 * (1 - math.cos(math.pi * gone)) / 2
    if schedule in ("plateau", "constant"):
        return 1.0
    floor = 1e-4 if schedule == "one-cycle" else 0.0
    gone = min(1.0, (step - rise) / max(1, total - rise))
    return floor + (1 - floor) * (1 + math.cos(math.pi * gone)) / 2


def _falls(history: Sequence[dict[str, Any]], score: str, wait: int = 3) -> int:
    """How often the plateau schedule has halved the rate: after every `wait` epochs without a better score."""
    best, waited, falls = -math.inf, 0, 0
    for line in history:
        waited = 0 if line[score] > best else waited + 1
        best = max(best, line[score])
        if waited == wait:
            falls, waited = falls + 1, 0
    return falls


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


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@torch.no_grad()
def _average(average: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    """Counters and other whole numbers are taken over as they are. The decay starts small, or the start would weigh."""
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


@torch.no_grad()
def _validate(
    model: nn.Module, average: dict[str, Tensor] | None, validate: Callable[[], dict[str, float]]
) -> dict[str, float]:
    trained = _copy(model) if average is not None else None
    if average is not None:
        model.load_state_dict(average)
    model.eval()
    figures = validate()
    if trained is not None:
        model.load_state_dict(trained)
    return figures


def _best(at: _Progress, score: str) -> str:
    return f"best {score} {at.best_score:.3f} in epoch {at.best_epoch}" if at.best_epoch else ""


def _diverged(title: str, epoch: int) -> AffectError:
    return AffectError(
        f"{title}: in epoch {epoch} the loss or its gradient was not finite in {ENOUGH} steps in a row, or in all",
        "Lower the learning rate, set train.gradient_clip, or use --set runtime.precision=fp32.",
    )


def _write_state(
    path: Path,
    key: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor] | None,
    best: dict[str, Tensor] | None,
    at: _Progress,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}
    state = {
        "key": key,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average,
        "best": best,
        "random": random,
        "progress": vars(at),
    }
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        torch.save(state, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read_state(path: Path, key: str, device: torch.device, talk: Talk) -> dict[str, Any] | None:
    """None if there is none, or it belongs to another key, or is damaged (which is said)."""
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError):
        talk.warn(f"{path}: the state of the interrupted training is damaged; it starts from the beginning.")
        return None
    return state if state.get("key") == key else None


def _restore_random(random: dict[str, Any]) -> None:
    torch.set_rng_state(random["cpu"].cpu())
    if random["cuda"] and torch.cuda.device_count() == len(random["cuda"]):
        torch.cuda.set_rng_state_all([state.cpu() for state in random["cuda"]])
