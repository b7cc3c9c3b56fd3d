"""Detects faces with YuNet (Wu et al., 2023), whose model file the user gives, and tracks one face over time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import WeightsError
from ..records import Boxes

Faces = tuple[NDArray[np.float32], NDArray[np.float32]]
"""corners [k, 4], x0 y0 x1 y1 in pixels; score [k] in [0, 1]."""


@dataclass(frozen=True)
class Detector:
    """find(pixels, width, height): the faces in each frame, in pixels of a width x height video.

    pixels: uint8 [n, h, w, 3], RGB, as `decode` returns them for `size`: the side of square frames, or None for the
    size of the video. batch: frames per call.
    """

    size: int | None
    batch: int
    find: Callable[[NDArray[np.uint8], int, int], list[Faces]]


MAX_SIDE = 640
"""YuNet gets larger frames scaled down to this length of the longer side."""

_ABSENT_SCORE = 0.35 * 0.1
"""What a frame without a face adds to the value of a track."""
_MAX_MOVE_COST = 1.5
"""Upper limit of the cost of a move, in face sizes."""


def open_yunet(model: Path) -> Detector:
    """The detector of a YuNet .onnx file. Raises WeightsError."""
    cv2.setNumThreads(1)
    try:
        yunet = cv2.FaceDetectorYN.create(str(model), "", (MAX_SIDE, MAX_SIDE), score_threshold=0.6)
    except cv2.error as error:
        raise WeightsError(
            f"{model.name} is not a YuNet model: {error.err}", "Download one from the OpenCV model zoo."
        ) from error
    return Detector(None, 8, lambda pixels, _width, _height: [_yunet(yunet, picture) for picture in pixels])


def no_faces() -> Faces:
    """The result for a frame without a face."""
    return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)


def track_one_face(faces: Sequence[Faces], *, gap: int, smooth: int = 5) -> Boxes:
    """Finds the best track of one face through all frames and returns its boxes.

    The track is the best path (Viterbi) over the faces of each frame and the state "absent". A face adds its score; a
    move costs its distance in face sizes. Gaps of up to `gap` frames are filled by linear interpolation. Corners are
    averaged over `smooth` frames (odd). Frames outside the track have no box.
    """
    chosen = _best_path(faces)
    frame = np.array([t for t, k in enumerate(chosen) if k is not None], dtype=np.int64)
    if not len(frame):
        return Boxes(frame, np.zeros((0, 4), np.float32))
    corners = np.stack([faces[t][0][k] for t, k in enumerate(chosen) if k is not None])
    segments = [
        _fill(frame[run], corners[run], smooth)
        for run in np.split(np.arange(len(frame)), np.flatnonzero(np.diff(frame) > gap + 1) + 1)
    ]
    return Boxes(np.concatenate([f for f, _ in segments]), np.concatenate([c for _, c in segments]))


def _yunet(detector: cv2.FaceDetectorYN, picture: NDArray[np.uint8]) -> Faces:
    small, scale = _shrink(np.ascontiguousarray(picture[..., ::-1]))
    detector.setInputSize((small.shape[1], small.shape[0]))
    found = detector.detect(small)[1]
    if found is None:
        return no_faces()
    box = np.asarray(found, np.float64)
    corners = np.concatenate([box[:, :2], box[:, :2] + box[:, 2:4]], axis=1) / scale
    return _clip(corners, picture), box[:, -1].astype(np.float32)


def _shrink(picture: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
    scale = min(1.0, MAX_SIDE / max(picture.shape[:2]))
    if scale == 1.0:
        return picture, 1.0
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8), scale


def _clip(corners: NDArray[np.float64], picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    height, width = picture.shape[:2]
    return np.clip(corners, 0, [width, height, width, height]).astype(np.float32)


def _best_path(faces: Sequence[Faces]) -> list[int | None]:
    """For each frame, the face on the best path, or None.

    State k of a frame is its k-th face; the last state is "absent", which has no position. So a track can continue at
    any position after a gap, for the largest cost of a move.
    """
    value = np.zeros(1)
    before: tuple[NDArray[np.float32], NDArray[np.float32]] = (np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    steps: list[NDArray[np.int64]] = []
    for corners, score in faces:
        cost = np.full((len(value), len(score) + 1), _MAX_MOVE_COST / 2)
        cost[-1, -1] = 0.0
        if len(before[0]) and len(corners):
            cost[:-1, :-1] = np.minimum(_distance(before[0], corners), _MAX_MOVE_COST)
        total = value[:, None] - cost
        steps.append(total.argmax(axis=0))
        value = total.max(axis=0) + np.append(score, _ABSENT_SCORE)
        before = (corners, score)
    path: list[int | None] = []
    state = int(value.argmax())
    for (corners, _), step in zip(reversed(faces), reversed(steps), strict=True):
        path.append(state if state < len(corners) else None)
        state = int(step[state])
    return path[::-1]


def _distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Distance between the boxes of a and b in face sizes, plus the change of size: [len(a), len(b)]."""
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
