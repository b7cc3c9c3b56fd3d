"""The state of a training: what is trained, the best of it so far, and the file from which a stopped one goes on."""

import math
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol
from zipfile import is_zipfile

import torch
from torch import Tensor, nn

from ..errors import WorkError
from ..processes import place
from ..progress import Talk
from ..storage.leftovers import sync, temporary_beside
from .distributed import all_of


class Carried(Protocol):
    """What else an epoch gathers on its way, and a state in the middle of it has to hold."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> None: ...


@dataclass
class Sums:
    """Sums over the steps of an epoch; steps that were skipped are counted only. seconds: spent on it so far."""

    totals: dict[str, Any] = field(default_factory=dict)
    taken: int = 0
    skipped: int = 0
    in_a_row: int = 0
    seconds: float = 0.0

    def add(self, parts: dict[str, Any] | None) -> None:
        if parts is None:
            self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
            return
        self.taken, self.in_a_row = self.taken + 1, 0
        for name, part in parts.items():
            self.totals[name] = self.totals.get(name, 0.0) + (part.detach() if isinstance(part, Tensor) else part)

    def mean(self, name: str) -> float:
        return float(self.totals[name]) / self.taken if self.taken else math.nan


@dataclass
class RunState:
    """The state of a training run. `average` and `best` are state dicts like the model's.

    epoch: how many are finished. step: steps of the optimizer so far. batch, sums: of the epoch that is under way, how
    many batches are done and what they came to. best_epoch 0: the weights it started from.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: dict[str, Tensor] | None = None
    best: dict[str, Tensor] | None = None
    best_epoch: int = 0
    best_score: float = -math.inf
    epoch: int = 0
    step: int = 0
    batch: int = 0
    sums: Sums = field(default_factory=Sums)
    history: list[dict[str, Any]] = field(default_factory=list)
    carried: Carried | None = None

    @property
    def weights(self) -> dict[str, Tensor]:
        """What is judged and kept: the running average where there is one."""
        return self.model.state_dict() if self.average is None else self.average

    def judge(self, score: float) -> None:
        """Keeps this epoch's weights if its score is the highest so far."""
        if self.best is None or score > self.best_score:
            self.best = copied(self.weights)
            self.best_score = score if math.isfinite(score) else -math.inf
            self.best_epoch = self.epoch

    def describe(self, score: str) -> str:
        where = f"in epoch {self.best_epoch}" if self.best_epoch else "at the start"
        return f"best {score} {self.best_score:.3f} {where}" if self.best is not None else ""


def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict that later steps do not change."""
    return {name: value.detach().clone() for name, value in state.items()}


@torch.no_grad()
def blend(average: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    """Moves the running average towards the model: average = decay * average + (1 - decay) * model.

    Counters and other whole numbers are taken over as they are."""
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


_KEPT = ("average", "best", "best_epoch", "best_score", "epoch", "step", "batch", "history")


def save_state(path: Path, key: str, run: RunState, device: torch.device) -> None:
    """Writes the file, whole or not at all: at every moment the one before or the new one is there, on the disk itself.

    All processes call it, as each has a random state; rank 0 writes. Raises WorkError."""
    random = all_of(torch.get_rng_state()[None], device)
    on_gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.empty(0, dtype=torch.uint8)
    random_cuda = all_of(on_gpu[None], device)
    if place().rank:
        return
    state = {
        "key": key,
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "random": random,
        "random_cuda": random_cuda,
        "sums": vars(run.sums),
        "carried": run.carried.state_dict() if run.carried else None,
        **{name: getattr(run, name) for name in _KEPT},
    }
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        raise WorkError(f"{path}: cannot be written ({error})", "Free space, or choose another --work.") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def load_state(path: Path, key: str, run: RunState, device: torch.device, talk: Talk) -> bool:
    """Takes up the state in the file; False where there is none, or another key's, or a damaged one (which is said)."""
    if not path.is_file():
        return False
    before = copied(run.model.state_dict())
    try:
        if not is_zipfile(path):  # torch reads what is no archive as an old format, and fails in many ways
            raise EOFError("not an archive")
        state = torch.load(path, map_location=device, weights_only=True)
        if state["key"] != key:
            return False
        kept = {name: state[name] for name in _KEPT}
        sums, carried, random, random_cuda = (state[name] for name in ("sums", "carried", "random", "random_cuda"))
        run.model.load_state_dict(state["model"])
        run.optimizer.load_state_dict(state["optimizer"])
    except (OSError, RuntimeError, EOFError, UnpicklingError, KeyError, TypeError, ValueError) as error:
        run.model.load_state_dict(before)
        talk.detail(str(error))
        talk.warn(f"{path}: the state of the interrupted training is damaged; it starts from the beginning.")
        return False
    for name, value in kept.items():
        setattr(run, name, value)
    run.sums = Sums(**sums)
    if run.carried and carried is not None:
        run.carried.load_state_dict(carried)
    here = place()
    if len(random) != here.world:  # started again with more or fewer processes: noise and dropout are drawn anew
        torch.manual_seed(1000 * run.step + here.rank)
        return True
    torch.set_rng_state(random[here.rank][0].cpu())
    if device.type == "cuda" and random_cuda[here.rank].numel():
        torch.cuda.set_rng_state(random_cuda[here.rank][0].cpu(), device)
    return True


def _sync_folder(folder: Path) -> None:
    """Puts the renaming itself onto the disk; systems that cannot open a folder do without."""
    with suppress(OSError):
        sync(folder)
