"""The state of a training: model, optimizer, best weights so far, and the file to resume from."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol
from zipfile import is_zipfile

import torch
from torch import Tensor, nn

from ..processes import rank_info
from ..progress import Reporter
from ..storage.atomic import replacing, unwritable
from .distributed import gather_all


class Stateful(Protocol):
    """Other objects with state within an epoch, which the state file must contain."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> None: ...


@dataclass
class EpochStats:
    """Sums over the steps of an epoch. Skipped steps are only counted. seconds: time spent in the epoch so far."""

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

    epoch: number of finished epochs. step: optimizer steps so far. batch, sums: of the current epoch, the number of
    finished batches and their statistics. best_epoch: 0 for the starting weights.
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
    sums: EpochStats = field(default_factory=EpochStats)
    history: list[dict[str, Any]] = field(default_factory=list)
    carried: Stateful | None = None

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights that are validated and kept: the running average if there is one."""
        return self.model.state_dict() if self.average is None else self.average

    def update_best(self, score: float) -> None:
        """Keeps the weights of this epoch if its score is the highest so far."""
        if self.best is None or score > self.best_score:
            self.best = clone_state(self.weights)
            self.best_score = score if math.isfinite(score) else -math.inf
            self.best_epoch = self.epoch

    def describe(self, score: str) -> str:
        where = f"in epoch {self.best_epoch}" if self.best_epoch else "at the start"
        return f"best {score} {self.best_score:.3f} {where}" if self.best is not None else ""


def clone_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A copy of a state dict, which later steps do not change."""
    return {name: value.detach().clone() for name, value in state.items()}


@torch.no_grad()
def ema_update(average: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    """Moves the running average towards the model: average = decay * average + (1 - decay) * model.

    Integers, such as counters, are copied."""
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


_KEPT = ("average", "best", "best_epoch", "best_score", "epoch", "step", "batch", "history")


def save_state(path: Path, key: str, run: RunState, device: torch.device) -> None:
    """Writes the file atomically: at every moment either the old or the new file is complete on the disk.

    All processes must call it, because each has a random state. Rank 0 writes. Raises WorkError."""
    random = gather_all(torch.get_rng_state()[None], device)
    on_gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.empty(0, dtype=torch.uint8)
    random_cuda = gather_all(on_gpu[None], device)
    if rank_info().rank:
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
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:
        raise unwritable(path, error) from error


def load_state(path: Path, key: str, run: RunState, device: torch.device, reporter: Reporter) -> bool:
    """Restores the state in the file. False if it is missing, has another key or is damaged (with a warning)."""
    if not path.is_file():
        return False
    before = clone_state(run.model.state_dict())
    try:
        if not is_zipfile(path):  # torch would read another file as its old format and raise many kinds of errors
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
        reporter.debug(str(error))
        reporter.warning(
            f"{path}: the state of the interrupted training is damaged. Training starts from the beginning."
        )
        return False
    for name, value in kept.items():
        setattr(run, name, value)
    run.sums = EpochStats(**sums)
    if run.carried and carried is not None:
        run.carried.load_state_dict(carried)
    rank = rank_info()
    if len(random) != rank.world:  # another number of processes: new random numbers for noise and dropout
        torch.manual_seed(1000 * run.step + rank.rank)
        return True
    torch.set_rng_state(random[rank.rank][0].cpu())
    if device.type == "cuda" and random_cuda[rank.rank].numel():
        torch.cuda.set_rng_state(random_cuda[rank.rank][0].cpu(), device)
    return True
