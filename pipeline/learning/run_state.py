"""The state of a training: what is trained, the best of it so far, and the file from which a stopped one goes on."""

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch
from torch import Tensor, nn

from ..errors import WorkError
from ..progress import Talk


@dataclass
class RunState:
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
            self.best = copied(self.average or self.model.state_dict())
            self.best_score = score if math.isfinite(score) else -math.inf
            self.best_epoch = self.epoch

    def describe(self, score: str) -> str:
        return f"best {score} {self.best_score:.3f} in epoch {self.best_epoch}" if self.best_epoch else ""


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


_KEPT = ("average", "best", "best_epoch", "best_score", "epoch", "step", "history")


def save_state(path: Path, key: str, run: RunState) -> None:
    """Writes the file, whole or not at all. Raises WorkError."""
    state = {
        "key": key,
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        **{name: getattr(run, name) for name in _KEPT},
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, temporary)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        raise WorkError(f"{path}: cannot be written ({error})", "Free space, or choose another --work.") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_state(path: Path, key: str, run: RunState, device: torch.device, talk: Talk) -> bool:
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
    except (OSError, RuntimeError, EOFError, UnpicklingError, KeyError, TypeError, ValueError) as error:
        talk.detail(str(error))
        talk.warn(f"{path}: the state of the interrupted training is damaged; it starts from the beginning.")
        return False
    for name in _KEPT:
        setattr(run, name, state[name])
    torch.set_rng_state(state["random"].cpu())
    if len(state["random_cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([random.cpu() for random in state["random_cuda"]])
    return True
