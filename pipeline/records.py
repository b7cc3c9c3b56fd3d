"""Small frozen data classes that several folders share. They check the shapes of their arrays. No heavy imports."""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "validation", "test"]
Side = Literal["left", "right"]
Region = tuple[float, float, float, float]
"""x0, y0, x1, y1 as fractions of the picture."""

WHOLE: Region = (0.0, 0.0, 1.0, 1.0)
NOT_ANNOTATED = -5.0
DIMENSIONS = ("valence", "arousal")
MODEL_FILE = "model.safetensors"
"""The model in the folder of a run."""
MODEL_FORMAT = "affect-model"
"""The format in the metadata of a model file."""
BASE = "base"
"""The name of the base model where a model or weights can be named."""
BASE_MODEL = Path(__file__).parents[1] / "models" / "pretrained" / "base.safetensors"
"""The model that comes with affect."""


@dataclass(frozen=True)
class Problem:
    """An input that could not be used, or not completely: what is wrong and the remedy.

    kind: missing, damaged, refused, or note (it was used).
    """

    kind: Literal["missing", "damaged", "refused", "note"]
    name: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.message}{'. ' + self.remedy if self.remedy else ''}"


@dataclass(frozen=True)
class Video:
    """One video file. `name` is its stem, unique in a catalog."""

    name: str
    path: Path


@dataclass(frozen=True)
class Subject:
    """One annotated person in one video; each annotation file is one subject."""

    name: str
    video: str
    split: Split
    annotation: Path
    side: Side | None = None
    boxes: Path | None = None
    crops: Path | None = None

    @property
    def region(self) -> Region:
        """The part of the picture with this subject: a half for _left and _right, otherwise the whole picture."""
        if self.side is None:
            return WHOLE
        return (0.0, 0.0, 0.5, 1.0) if self.side == "left" else (0.5, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Catalog:
    """The content of a data folder: videos, subjects, and files that could not be matched."""

    root: Path
    videos: tuple[Video, ...]
    subjects: tuple[Subject, ...]
    problems: tuple[Problem, ...] = ()

    def video(self, name: str) -> Video:
        """The video of that name. Raises KeyError."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Video]:
        return {video.name: video for video in self.videos}

    def of_split(self, split: Split) -> tuple[Subject, ...]:
        return tuple(subject for subject in self.subjects if subject.split == split)


@dataclass(frozen=True)
class Labels:
    """An annotation file: one row per video frame.

    value: float32 [n, 2], (valence, arousal) in [-1, 1], 0 where not valid. valid: bool [n].
    """

    value: NDArray[np.float32]
    valid: NDArray[np.bool_]

    def __post_init__(self) -> None:
        _check("value", self.value, (len(self.valid), 2), np.float32)
        _check("valid", self.valid, (len(self.valid),), np.bool_)

    def __len__(self) -> int:
        return len(self.valid)


@dataclass(frozen=True)
class Boxes:
    """Face boxes of one subject; a frame without a face has no row.

    frame: int64 [k], from 0, strictly increasing. corners: float32 [k, 4], x0 y0 x1 y1 in source pixels, half-open.
    """

    frame: NDArray[np.int64]
    corners: NDArray[np.float32]

    def __post_init__(self) -> None:
        _check("frame", self.frame, (len(self.frame),), np.int64)
        _check("corners", self.corners, (len(self.frame), 4), np.float32)

    def __len__(self) -> int:
        return len(self.frame)


@dataclass(frozen=True)
class VideoFacts:
    """What the container tells about its video stream, without decoding.

    width, height: in stored pixels, after rotation. pixel_aspect: width of a pixel divided by its height.
    """

    width: int
    height: int
    frames: int
    seconds: float
    codec: str
    pixel_aspect: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """Width and height in square pixels. No side is shorter than in stored pixels."""
        return shape(self.width, self.height, self.pixel_aspect)

    @property
    def stretch(self) -> tuple[float, float]:
        """Width and height of a stored pixel, in the square pixels of `shape`."""
        return self.shape[0] / self.width, self.shape[1] / self.height


def shape(width: int, height: int, pixel_aspect: float) -> tuple[int, int]:
    """Width and height in square pixels of a picture with this pixel aspect."""
    return round(width * max(1.0, pixel_aspect)), round(height * max(1.0, 1 / pixel_aspect))


@dataclass(frozen=True)
class FrameBatch:
    """Consecutive frames. index: int64 [t] from 0; time: float64 [t] seconds; pixels: uint8 [t, h, w, 3] RGB."""

    index: NDArray[np.int64]
    time: NDArray[np.float64]
    pixels: NDArray[np.uint8]

    def __post_init__(self) -> None:
        t = len(self.index)
        _check("index", self.index, (t,), np.int64)
        _check("time", self.time, (t,), np.float64)
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 4 or self.pixels.shape[::3] != (t, 3):
            raise ValueError(f"pixels is {self.pixels.dtype} {self.pixels.shape}, expected uint8 [{t}, h, w, 3]")

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True)
class Aligned:
    """Labels paired with decoded frames: target[i] belongs to frame index[i].

    index: int64 [m]. target: float32 [m, 2], 0 where not valid. valid: bool [m]. difference: rows minus frames.
    """

    index: NDArray[np.int64]
    target: NDArray[np.float32]
    valid: NDArray[np.bool_]
    difference: int

    def __post_init__(self) -> None:
        m = len(self.index)
        _check("index", self.index, (m,), np.int64)
        _check("target", self.target, (m, 2), np.float32)
        _check("valid", self.valid, (m,), np.bool_)

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True)
class StageReport:
    """The result of a stage. made: computed now. kept: was up to date. failed: could not be made, with the reason."""

    stage: str
    output: Path
    made: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    failed: tuple[Problem, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "output": str(self.output)}


def training_facts(report: dict[str, Any]) -> dict[str, Any]:
    """The facts of a pretraining stage: the report in its weights, without the long parts."""
    return {name: value for name, value in report.items() if name not in ("history", "environment")}


@dataclass(frozen=True)
class Work:
    """The work folder: the paths of the outputs of all stages."""

    root: Path

    def absolute(self) -> "Work":
        """The same folder, by a path that does not depend on the current folder of a process."""
        return Work(self.root.absolute())

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def audit(self) -> Path:
        return self.root / "audit.json"

    @property
    def failures(self) -> Path:
        return self.root / "failures.json"

    @property
    def report(self) -> Path:
        return self.root / "report"

    def frames(self, video: str) -> Path:
        return self.root / "frames" / f"{video}.h5"

    def features(self, subject: str) -> Path:
        return self.root / "features" / f"{subject}.h5"

    def weights(self, name: str) -> Path:
        return self.root / "weights" / f"{name}.safetensors"

    def run(self, name: str) -> Path:
        """The folder of a run. Raises ValueError for a name that could lead out of the work folder."""
        if not is_name(name):
            raise ValueError(f"{name!r} is not a valid name of a run")
        return self.root / "train" / name

    def runs(self) -> Iterator[Path]:
        """The folders of the runs that have a model, oldest first."""
        found = [path.parent for path in self.root.glob(f"train/*/{MODEL_FILE}")]
        yield from sorted(found, key=lambda path: (path / MODEL_FILE).stat().st_mtime)


def is_name(text: str) -> bool:
    """Whether this can be the name of a run: at most 100 letters, digits and . _ + -, not starting with a dot."""
    return len(text) <= 100 and re.fullmatch(r"\w[\w.+-]*", text) is not None


def _check(name: str, array: NDArray[Any], shape: tuple[int, ...], dtype: type) -> None:
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"{name} is {array.dtype} {list(array.shape)}, expected {np.dtype(dtype)} {list(shape)}")
