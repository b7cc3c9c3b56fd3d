"""The records that travel between rooms. Frozen; they check their own shapes. No heavy imports."""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
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


@dataclass(frozen=True)
class Problem:
    """One input that could not be used, or not wholly: what, where, and the remedy.

    kind: missing, damaged, refused, or note (used, but worth knowing).
    """

    kind: Literal["missing", "damaged", "refused", "note"]
    name: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.message}{'. ' + self.remedy if self.remedy else ''}"


@dataclass(frozen=True)
class Video:
    """One video file. `name` is its stem, unique in a catalogue."""

    name: str
    path: Path


@dataclass(frozen=True)
class Subject:
    """One annotated person in one video: what an annotation file stands for."""

    name: str
    video: str
    split: Split
    annotation: Path
    side: Side | None = None
    boxes: Path | None = None
    crops: Path | None = None

    @property
    def region(self) -> Region:
        """The part of the picture that is this subject's: its half for _left and _right, else all of it."""
        if self.side is None:
            return WHOLE
        return (0.0, 0.0, 0.5, 1.0) if self.side == "left" else (0.5, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Catalog:
    """What lies in a data folder: videos, subjects, and what could not be paired."""

    root: Path
    videos: tuple[Video, ...]
    subjects: tuple[Subject, ...]
    problems: tuple[Problem, ...] = ()

    def video(self, name: str) -> Video:
        """The video of that name. Raises KeyError."""
        for video in self.videos:
            if video.name == name:
                return video
        raise KeyError(name)

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
    """What a container says of its video stream, without decoding. width and height are as shown (rotation applied)."""

    width: int
    height: int
    frames: int
    seconds: float
    codec: str


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
    """What a stage did. made: computed now. kept: found up to date. failed: given up, with the reason."""

    stage: str
    output: Path
    made: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    failed: tuple[Problem, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "output": str(self.output)}


@dataclass(frozen=True)
class Work:
    """The work folder: where each stage's output lies. The only place that knows these names."""

    root: Path

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
        """Raises ValueError for what is no name: nothing may lead out of the folder."""
        if not is_name(name):
            raise ValueError(f"{name!r} is not the name of a run")
        return self.root / "train" / name

    def runs(self) -> Iterator[Path]:
        """The folders of the runs that hold a model, oldest first."""
        found = [path.parent for path in self.root.glob("train/*/model.safetensors")]
        yield from sorted(found, key=lambda path: (path / "model.safetensors").stat().st_mtime)


def is_name(text: str) -> bool:
    """Whether a run may be called so: at most 100 letters, digits and . _ + - that lead nowhere else."""
    return len(text) <= 100 and re.fullmatch(r"\w[\w.+-]*", text) is not None


def _check(name: str, array: NDArray[Any], shape: tuple[int, ...], dtype: type) -> None:
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"{name} is {array.dtype} {list(array.shape)}, expected {np.dtype(dtype)} {list(shape)}")
