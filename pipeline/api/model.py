"""Model: a trained model in Python. It runs the same code as the commands, so the values are the same."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...configs.schema import Config
from ..errors import InputError
from ..inference.image_prediction import ImagePrediction
from ..inference.load import check_model, named_or_base, settings_for
from ..inference.offline import trace_one
from ..inference.pictures import predict_pictures, square_picture
from ..inference.predictor import Predictor
from ..inference.streaming import need_picture, open_source, stream_file, stream_live, stream_pictures
from ..inference.trace import Moment
from ..ingest.pictures import read_picture
from ..ingest.walk import url_of
from ..learning.model_file import model_path
from ..processes import own_networks
from ..progress import Reporter
from .trace import Trace


def load(path: str | Path | None = None, *, settings: str | Sequence[str] = ()) -> "Model":
    """Loads a model onto its device. path: a run folder, or the model.safetensors in it. None: the base model.

    settings: overrides as for `--set`, for example `["predict.no_face=empty", "runtime.device=cpu"]`. All other
    settings come from the run's config.yaml. If your program forks, load the model in each process, after the fork.

    Raises MissingStageError, WeightsError, ConfigError, DeviceError; ProcessError in a fork of a process that loaded a
    model.
    """
    own_networks()
    path = named_or_base(None if path is None else Path(path))
    return Model(path, settings_for(path, (settings,) if isinstance(settings, str) else settings))


class Model:
    """A loaded model. Use `affect.load` to make one.

    It is not thread-safe. In a fork of the process that loaded it, its methods raise ProcessError.

    path: the model file. config: the settings in use. causal: whether the head uses only earlier frames, as streams do.
    """

    def __init__(self, path: Path, config: Config) -> None:
        self.path, self.config = model_path(path), config
        self._predictor = Predictor(path, config)
        self.causal = not self._predictor.net.head.bidirectional

    def __repr__(self) -> str:
        return f"<affect.Model {str(self.path)!r} on {self._predictor.device}>"

    def predict(
        self, video: str | Path, *, emotions: bool = False, progress: bool = False, fps: float | None = None
    ) -> Trace:
        """Predicts a video: a row per decoded frame, with the same values as `affect predict`.

        emotions: also predict the eight expressions of FER+. progress: show a progress bar on stderr, if it is a
        terminal. fps: run the networks on about this many frames per second, and interpolate the others; None: as the
        setting `predict.fps` says. Raises VideoError, InputError for an fps below 1, and WeightsError if the backbone
        has no emotions.
        """
        return self._traces(video, emotions, progress, 1, fps)[0]

    def predict_people(
        self,
        video: str | Path,
        people: int = 2,
        *,
        emotions: bool = False,
        progress: bool = False,
        fps: float | None = None,
    ) -> list[Trace]:
        """Predicts up to `people` people (1 to 4): one trace per person, from left to right by their first position.

        The list is shorter if fewer people are found. Raises the errors of `predict`, and InputError for another
        number of people.
        """
        return self._traces(video, emotions, progress, people, fps)

    def predict_image(self, image: str | Path | NDArray[np.uint8], *, emotions: bool = False) -> ImagePrediction:
        """Predicts the most likely face in a picture, with the same values as `affect predict`.

        image: a file, or RGB pixels, uint8 [height, width, 3]. emotions: also predict the eight expressions of FER+.
        Raises PictureError, InputError, and WeightsError if the backbone has no emotions.
        """
        own_networks()
        classes = check_model(self.path, Reporter(quiet=True), emotions=emotions, people=1)
        if isinstance(image, str | Path):
            path = Path(image)
            square = square_picture(read_picture(path), self._predictor.size, path.name, path)
        else:
            square = square_picture(need_picture(image, "image"), self._predictor.size, "image")
        return predict_pictures(self._predictor, [square], classes)[0]

    def stream(self, source: str | int | Path | Iterable[NDArray[np.uint8]], *, rate: float = 30.0) -> Iterator[Moment]:
        """Predicts frame by frame from the current and earlier frames, in constant memory, until the source ends.

        source: a file, of which every frame is used; a camera number or URL, of which frames are dropped that arrive
        faster than they can be processed; or RGB pictures, uint8 [height, width, 3], at `rate` pictures per second.

        The values differ from those of `predict`, which also uses later frames. A bidirectional head reads a sliding
        window, and the output for its last frame is used. Frames without a face repeat the last values; with
        `predict.no_face=empty` they have none. Raises VideoError, InputError.
        """
        own_networks()
        # Check the source before the first frame is requested, so that the traceback shows the call of `stream`.
        if isinstance(source, str) and source.isdigit():
            source = int(source)
        if isinstance(source, bool | np.bool_ | bytes) or source is None:
            raise InputError(f"source is {source!r}", "Give a camera number, a URL, a file, or RGB pictures.")
        if isinstance(source, int | np.integer):
            if source < 0:
                raise InputError(f"camera {source}", "Camera numbers start at 0.")
            return self._live(int(source))
        if isinstance(source, str | Path):
            url = url_of(source)
            return stream_file(self._predictor, Path(source)) if url is None else self._live(url)
        return stream_pictures(self._predictor, source, rate)

    def _live(self, source: int | str) -> Iterator[Moment]:
        with open_source(self._predictor, source) as newest:
            for moment, _ in stream_live(self._predictor, newest):
                yield moment

    def _traces(self, video: str | Path, emotions: bool, progress: bool, people: int, fps: float | None) -> list[Trace]:
        own_networks()
        predictor = self._predictor if fps is None else self._predictor.at_rate(fps)
        reporter = Reporter(quiet=not progress)
        classes = check_model(self.path, reporter, emotions=emotions, people=people)
        traces = trace_one(predictor, Path(video), reporter, classes=classes, people=people)
        return [Trace.of(trace) for trace in traces]
