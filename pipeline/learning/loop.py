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
from zipfile import is_zipfile

import torch
from torch import Tensor, nn

from ..errors import AffectError, WorkError
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
class _Run:
    """The state of a training run. `average` and `best` are state dicts like the model's."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: dict[str, Tensor] | None = None
    best: dict[str, Tensor] | None = None
    best_epoch: int = 0
    best_score: float = -math.inf
    epoch: int = 0
    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    def judge(self, score: float) -> None:
        """Keeps this epoch's weights if its score is the highest so far."""
        if self.best is None or score > self.best_score:
            self.best = _copy(self.average or self.model.state_dict())
            self.best_score = score if math.isfinite(score) else -math.inf
            self.best_epoch = self.epoch

    def describe(self, score: str) -> str:
        return f"best {score} {self.best_score:.3f} in epoch {self.best_epoch}" if self.best_epoch else ""


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
    run = _Run(model, optimizer, _copy(model.state_dict()) if ema else None)
    if state and _load(state, key, run, device, talk):
        talk.say(f"{title}: going on after epoch {run.epoch}")

    def steer() -> None:
        falls = _falls([line[score] for line in run.history]) if schedule == "plateau" else 0
        factor = rate_factor(schedule, run.step, epochs * steps, warmup) * 0.5**falls
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
                sums.add(_step(run, batch, loss, gradient_clip, ema, device, dtype))
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
                _save(state, key, run)
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
    run: _Run,
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
        _average(run.average, run.model, min(ema, run.step / (run.step + 9)))
    return {"loss": value, **parts, "gradient_norm": norm}


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


def _falls(scores: Sequence[float], wait: int = 3) -> int:
    """How often the plateau schedule has halved the rate: after every `wait` epochs without a better score."""
    best, waited, falls = -math.inf, 0, 0
    for score in scores:
        waited = 0 if score > best else waited + 1
        best = max(best, score)
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


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}


@torch.no_grad()
def _average(average: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    """Counters and other whole numbers are taken over as they are."""
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


@torch.no_grad()
def _validate(run: _Run, validate: Callable[[], dict[str, float]]) -> dict[str, float]:
    trained = _copy(run.model.state_dict()) if run.average is not None else None
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


_KEPT = ("average", "best", "best_epoch", "best_score", "epoch", "step", "history")


def _save(path: Path, key: str, run: _Run) -> None:
    state = {
        "key": key,
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        **{name: getattr(run, name) for name in _KEPT},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        torch.save(state, temporary)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        raise WorkError(f"{path}: cannot be written ({error})", "Free space, or choose another --work.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _load(path: Path, key: str, run: _Run, device: torch.device, talk: Talk) -> bool:
    """Takes up the state in the file; False where there is none, or another key's, or a damaged one (which is said)."""
    if not path.is_file():
        return False
    try:
        if not is_zipfile(path):  # torch reads what is no archive as an old format, and fails in many ways
            raise EOFError("not an archive")
        state = torch.load(path, map_location=device, weights_only=True)
        if state["key"] != key:
            return False
        run.model.load_state_dict(state["model"])
        run.optimizer.load_state_dict(state["optimizer"])
    except (OSError, RuntimeError, EOFError, UnpicklingError, KeyError, TypeError) as error:
        talk.detail(str(error))
        talk.warn(f"{path}: the state of the interrupted training is damaged; it starts from the beginning.")
        return False
    for name in _KEPT:
        setattr(run, name, state[name])
    torch.set_rng_state(state["random"].cpu())
    if len(state["random_cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([random.cpu() for random in state["random_cuda"]])
    return True
