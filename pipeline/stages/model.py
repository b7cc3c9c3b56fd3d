"""Model: a trained model in Python. It looks through the same code as the command, so the numbers are the same."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...configs.schema import Config
from ..learning.model_file import model_path
from ..learning.network import Network
from ..progress import Talk
from .predict import check_model, settings_for, trace_video
from .streaming import open_newest, stream_file, stream_live, stream_pictures
from .trace import Moment, Trace


def load(path: str | Path, *, settings: Sequence[str] = ()) -> "Model":
    """The model of a run folder, or of its model.safetensors, on its device.

    settings: overrides as after `--set`: `["predict.no_face=empty", "runtime.device=cpu"]`. What they leave out is as
    the run's config.yaml says. Raises MissingStageError, WeightsError, ConfigError, DeviceError.
    """
    path = Path(path)
    return Model(path, settings_for(path, settings))


class Model:
    """Made by `affect.load`. Not for several threads at once.

    path: of its file. config: the settings in force. causal: whether its head reads time one way only, as streams do.
    """

    def __init__(self, path: Path, config: Config) -> None:
        self.path, self.config = model_path(path), config
        self._network = Network(path, config)
        self.causal = not self._network.net.head.bidirectional

    def __repr__(self) -> str:
        return f"<affect.Model {str(self.path)!r} on {self._network.device}>"

    def predict(self, video: str | Path, *, emotions: bool = False, progress: bool = False) -> Trace:
        """A row per decoded frame of a video: the numbers that `affect predict` writes.

        emotions: also the backbone's eight expressions. progress: a bar on stderr, on a terminal. Raises VideoError;
        WeightsError where its backbone knows no emotions.
        """
        return self._traces(video, emotions, progress, 1)[0]

    def predict_people(
        self, video: str | Path, people: int = 2, *, emotions: bool = False, progress: bool = False
    ) -> list[Trace]:
        """A trace of each of up to four people, from left to right by where they first appear; fewer where fewer are
        found. Raises as `predict`, and InputError for another number."""
        return self._traces(video, emotions, progress, people)

    def stream(self, source: str | int | Path | Iterable[NDArray[np.uint8]], *, rate: float = 30.0) -> Iterator[Moment]:
        """Frame by frame, each with no more than what came before, in constant memory, for as long as it lasts.

        source: a file, all frames of it; a camera's number or a URL, of which frames that come too fast are passed
        over; or RGB pictures, uint8 [height, width, 3], of which `rate` make a second. A bidirectional head reads a
        sliding window of which the last frame counts. Frames without a face have the last values, none with
        `predict.no_face=empty`. The numbers are not those of `predict`, which knows what comes next. Raises VideoError,
        InputError.
        """
        if isinstance(source, int) or (isinstance(source, str) and (source.isdigit() or "://" in source)):
            with open_newest(self._network, source) as newest:
                for moment, _ in stream_live(self._network, newest):
                    yield moment
        elif isinstance(source, str | Path):
            yield from stream_file(self._network, Path(source))
        else:
            yield from stream_pictures(self._network, source, rate)

    def _traces(self, video: str | Path, emotions: bool, progress: bool, people: int) -> list[Trace]:
        talk = Talk(quiet=not progress)
        classes = check_model(self.path, talk, emotions=emotions, people=people)
        return trace_video(self._network, Path(video), talk, classes=classes, people=people)
