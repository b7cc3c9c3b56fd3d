"""TensorBoard's event files of a run: what metrics.jsonl holds, and the same by step. The only tensorboard import."""

import shutil
import time
from pathlib import Path
from typing import Any

from ..errors import ConfigError

FOLDER = "tensorboard"


class Board:
    """Writes into the folder of a run. A training that starts anew removes what an earlier one left; one that goes on
    takes the place of the steps it does again. Raises ConfigError where TensorBoard is not installed."""

    def __init__(self, run: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "train.tensorboard is true, and TensorBoard is not installed",
                "Run: pip install 'affect[tensorboard]'. Or leave it out; metrics.jsonl has every epoch anyway.",
            ) from error
        self._open = SummaryWriter
        self._folder = run / FOLDER
        self._writer: Any = None
        self._frames, self._since = 0, time.perf_counter()

    def step(self, number: int, figures: dict[str, Any], frames: int) -> None:
        """number: of the step, from 1, over all epochs. frames: since the epoch began."""
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
        """line: as metrics.jsonl has it."""
        if self._writer is not None:
            for name, figure in line.items():
                if name != "epoch" and isinstance(figure, int | float):
                    self._writer.add_scalar(f"epoch/{name}", figure, line["epoch"])
            self._writer.flush()
        self._frames, self._since = 0, time.perf_counter()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
