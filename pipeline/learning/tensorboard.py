"""TensorBoard event files of a run: the values of metrics.jsonl, and per step. The only module that imports
tensorboard."""

import shutil
import time
from pathlib import Path
from typing import Any

from ..errors import ConfigError

FOLDER = "tensorboard"


class Board:
    """Writes into the folder of a run. A new training removes older event files; a resumed training replaces the steps
    that it repeats. Raises ConfigError if TensorBoard is not installed."""

    def __init__(self, run: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "train.tensorboard is true, but TensorBoard is not installed",
                "Install it (pip install tensorboard), or set train.tensorboard=false. metrics.jsonl has every epoch.",
            ) from error
        self._open = SummaryWriter
        self._folder = run / FOLDER
        self._writer: Any = None
        self._frames, self._since = 0, time.perf_counter()

    def step(self, number: int, figures: dict[str, Any], frames: int) -> None:
        """number: of the step, from 1, over all epochs. frames: since the start of the epoch."""
        if self._writer is None:
            if number <= 1:
                shutil.rmtree(self._folder, ignore_errors=True)
            self._writer = self._open(str(self._folder), purge_step=number)
        now = time.perf_counter()
        rate = (frames - self._frames) / max(now - self._since, 1e-9)
        self._frames, self._since = frames, now
        for name, figure in {**figures, "frames_per_second": rate}.items():
            self._writer.add_scalar(f"step/{name}", float(figure), number)

    def epoch(self, line: dict[str, Any]) -> None:
        """line: of metrics.jsonl."""
        if self._writer is not None:
            for name, figure in line.items():
                if name != "epoch" and isinstance(figure, int | float):
                    self._writer.add_scalar(f"epoch/{name}", figure, line["epoch"])
            self._writer.flush()
        self._frames, self._since = 0, time.perf_counter()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
