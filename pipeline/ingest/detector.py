"""Faces found by a kept-up detector, and one of them followed through time.

Two detectors of OpenCV: the frontal cascade that lies inside its package (Viola and Jones, 2001), and YuNet
(Wu et al., 2023), whose model file the user names.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import cv2.data
import numpy as np
from numpy.typing import NDArray

from ..errors import WeightsError
from ..records import Boxes

Faces = tuple[NDArray[np.float32], NDArray[np.float32]]
"""corners [k, 4], x0 y0 x1 y1 in pixels; score [k] in [0, 1]."""

LONGEST = 640
"""Pictures are searched at this length of their longer side at most."""
ROLLS = (0.0, 25.0, -25.0)
"""Degrees by which the cascade turns the picture until it finds a face: it knows upright faces only."""

_ABSENT = 0.35
_JUMP = 1.5


def open_detector(model: Path | None = None) -> Callable[[NDArray[np.uint8]], Faces]:
    """A function from a picture, uint8 [h, w, 3] RGB, to the faces in it.

    model: a YuNet .onnx file; None: OpenCV's own frontal cascade. Raises WeightsError.
    """
    cv2.setNumThreads(1)
    if model is None:
        cascade = cv2.CascadeClassifier(str(Path(cv2.data.haarcascades) / "haarcascade_frontalface_default.xml"))
        return lambda picture: _cascade(cascade, picture)
    if not model.is_file():
        raise WeightsError(f"{model} is not there", "Name a YuNet .onnx file, or leave --detector out.")
    try:
        yunet = cv2.FaceDetectorYN.create(str(model), "", (LONGEST, LONGEST), score_threshold=0.6)
    except cv2.error as error:
        raise WeightsError(
            f"{model.name} is no YuNet model: {error.err}", "Take it from OpenCV's model zoo."
        ) from error
    return lambda picture: _yunet(yunet, picture)


def nothing() -> Faces:
    """No face."""
    return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)


def follow(faces: Sequence[Faces], *, gap: int, smooth: int = 5) -> Boxes:
    """The one track through all frames that explains most of the faces found, as boxes.

    The track is the best path (Viterbi) over each frame's faces and "absent": a face is worth its score, a move costs
    its length in face sizes. Holes of up to `gap` frames are filled by straight lines; corners are averaged over
    `smooth` frames (odd). Frames outside the track have no box.
    """
    chosen = _best_path(faces)
    frame = np.array([t for t, k in enumerate(chosen) if k is not None], dtype=np.int64)
    if not len(frame):
        return Boxes(frame, np.zeros((0, 4), np.float32))
    corners = np.stack([faces[t][0][k] for t, k in enumerate(chosen) if k is not None])
    pieces = [
        _fill(frame[run], corners[run], smooth)
        for run in np.split(np.arange(len(frame)), np.flatnonzero(np.diff(frame) > gap + 1) + 1)
    ]
    return Boxes(np.concatenate([f for f, _ in pieces]), np.concatenate([c for _, c in pieces]))


def _cascade(cascade: cv2.CascadeClassifier, picture: NDArray[np.uint8]) -> Faces:
    grey, scale = _shrink(np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8))
    least = max(20, min(grey.shape) // 10)
    for roll in ROLLS:
        turn = cv2.getRotationMatrix2D((grey.shape[1] / 2, grey.shape[0] / 2), roll, 1.0)
        turned = grey if roll == 0 else cv2.warpAffine(grey, turn, grey.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
        found, _, weight = cascade.detectMultiScale3(turned, 1.1, 4, minSize=(least, least), outputRejectLevels=True)
        if len(found):
            box = np.asarray(found, np.float64).reshape(-1, 4)
            centre = box[:, :2] + box[:, 2:] / 2
            back = cv2.invertAffineTransform(turn)
            centre = centre @ back[:, :2].T + back[:, 2]
            corners = np.concatenate([centre - box[:, 2:] / 2, centre + box[:, 2:] / 2], axis=1) / scale
            score = 1.0 / (1.0 + np.exp(1.5 - np.ravel(weight)))
            return _inside(corners, picture), score.astype(np.float32)
    return nothing()


def _yunet(detector: cv2.FaceDetectorYN, picture: NDArray[np.uint8]) -> Faces:
    small, scale = _shrink(np.ascontiguousarray(picture[..., ::-1]))
    detector.setInputSize((small.shape[1], small.shape[0]))
    found = detector.detect(small)[1]
    if found is None:
        return nothing()
    box = np.asarray(found, np.float64)
    corners = np.concatenate([box[:, :2], box[:, :2] + box[:, 2:4]], axis=1) / scale
    return _inside(corners, picture), box[:, -1].astype(np.float32)


def _shrink(picture: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
    scale = min(1.0, LONGEST / max(picture.shape[:2]))
    if scale == 1.0:
        return picture, 1.0
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8), scale


def _inside(corners: NDArray[np.float64], picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    height, width = picture.shape[:2]
    return np.clip(corners, 0, [width, height, width, height]).astype(np.float32)


def _best_path(faces: Sequence[Faces]) -> list[int | None]:
    """For each frame the face on the best path, or None. State k of a frame is its k-th face; the last is absent,
    which remembers no place: a track may take up again anywhere after a hole, at the cost of one jump."""
    value = np.zeros(1)
    before: tuple[NDArray[np.float32], NDArray[np.float32]] = (np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    steps: list[NDArray[np.int64]] = []
    for corners, score in faces:
        cost = np.full((len(value), len(score) + 1), _JUMP / 2)
        cost[-1, -1] = 0.0
        if len(before[0]) and len(corners):
            cost[:-1, :-1] = np.minimum(_distance(before[0], corners), _JUMP)
        total = value[:, None] - cost
        steps.append(total.argmax(axis=0))
        value = total.max(axis=0) + np.append(score, _ABSENT * 0.1)
        before = (corners, score)
    path: list[int | None] = []
    state = int(value.argmax())
    for (corners, _), step in zip(reversed(faces), reversed(steps), strict=True):
        path.append(state if state < len(corners) else None)
        state = int(step[state])
    return path[::-1]


def _distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """How far each box of b is from each of a, in face sizes, with the change of size: [len(a), len(b)]."""
    centre_a, centre_b = (a[:, :2] + a[:, 2:]) / 2, (b[:, :2] + b[:, 2:]) / 2
    size_a, size_b = (np.maximum(x[:, 2] - x[:, 0], 1.0) for x in (a, b))
    shift = np.linalg.norm(centre_a[:, None] - centre_b[None], axis=-1) / np.sqrt(size_a[:, None] * size_b[None])
    return shift + np.abs(np.log(size_b[None] / size_a[:, None]))


def _fill(
    frame: NDArray[np.int64], corners: NDArray[np.float32], smooth: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    every = np.arange(frame[0], frame[-1] + 1, dtype=np.int64)
    whole = np.stack([np.interp(every, frame, corners[:, side]) for side in range(4)], axis=1)
    half = smooth // 2
    padded = np.pad(whole, ((half, half), (0, 0)), mode="edge")
    mean = np.stack([padded[k : k + len(every)] for k in range(2 * half + 1)]).mean(axis=0)
    return every, mean.astype(np.float32)
