"""Draws one demo video with PyAV, and returns the labels and boxes of its people."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from ...storage.atomic import replacing, unwritable
from .backgrounds import PAN, draw_background, draw_ball
from .brush import Brush, Image
from .faces import Expression, Portrait, Pose
from .identity import draw_identity
from .scenes import draw_hand, draw_light, draw_shoulders, spans, tremble, wander

TICK = Fraction(1, 90000)
CHOOSE = "another folder"
"""Remedy if a file cannot be written."""
BOX_HEIGHT = 1.72
"""Height of a face box in units of half the height of the head."""


@dataclass(frozen=True)
class SyntheticVideo:
    """What to draw. rate: frames per second. variable: with a variable frame rate."""

    path: Path
    seed: int
    frames: int
    rate: float
    people: int = 1
    width: int = 640
    height: int = 360
    variable: bool = False


@dataclass(frozen=True)
class GroundTruth:
    """Truth about one person. label: float64 [n, 2], valence and arousal. box: float64 [n, 4]. seen: bool [n]."""

    label: NDArray[np.float64]
    box: NDArray[np.float64]
    seen: NDArray[np.bool_]


class _Actor:
    """A person and all their movements over the whole video. place: number of the person from the left."""

    def __init__(
        self, rng: np.random.Generator, video: SyntheticVideo, seconds: NDArray[np.float64], place: int
    ) -> None:
        n, h, w, alone = video.frames, video.height, video.width, video.people == 1
        self.portrait = Portrait(draw_identity(rng))
        self.valence, self.arousal = wander(rng, seconds, 3.0), wander(rng, seconds, 3.0)
        # Part of arousal is visible only in movement, so that temporal models have an advantage.
        self.shown = np.clip(0.85 * self.arousal + 0.15 * wander(rng, seconds, 2.0), -1, 1)
        self.dominance = wander(rng, seconds, 4.0)
        self.gaze, self.turn = (np.stack([wander(rng, seconds, p), wander(rng, seconds, p)]) for p in (2.0, 3.0))
        self.blink = _blinks(rng, seconds)
        largest = 0.7 if alone else 0.42
        share = np.exp(rng.uniform(np.log(0.22), np.log(largest))) * (1 + 0.06 * wander(rng, seconds, 5.0))
        self.size = np.clip(share, 0.2, largest) * h / BOX_HEIGHT
        unrest = 0.012 + 0.05 * (self.arousal + 1) / 2
        middle, room = (0.5, 0.22) if alone else (0.25 + 0.5 * place, 0.04)
        away = spans(rng, n, 1, 0.09) if rng.random() < 0.45 else np.zeros(n, bool)
        aside = 1 if middle > 0.5 or (alone and rng.random() < 0.5) else -1
        self.x = w * (middle + room * wander(rng, seconds, 6.0)) + self.size * unrest * tremble(rng, n)
        self.x += aside * (0.6 * w + 2 * self.size) * _eased(away)
        self.y = h * (0.47 + 0.10 * wander(rng, seconds, 6.0)) + self.size * unrest * tremble(rng, n)
        self.roll = 14 * wander(rng, seconds, 4.0) + 70 * unrest * tremble(rng, n)
        self.hand = _eased(spans(rng, n, 1, 0.1)) if rng.random() < 0.4 else np.zeros(n)
        self.hand_at = (float(rng.uniform(-0.5, 0.5)), float(rng.uniform(0.45, 0.95)), int(rng.choice((-1, 1))))

    def pose(self, t: int) -> Pose:
        turn = (float(self.turn[0, t]), float(self.turn[1, t]))
        return Pose(float(self.x[t]), float(self.y[t]), float(self.size[t]), float(self.roll[t]), turn)

    def look(self, t: int) -> Expression:
        v, a, d, blink, gx, gy = (
            float(signal[t]) for signal in (self.valence, self.shown, self.dominance, self.blink, *self.gaze)
        )
        return Expression(v, a, d, blink=blink, gaze=(gx, gy))

    def draw(self, picture: Image, t: int) -> None:
        pose = self.pose(t)
        if not -3 * pose.size < pose.x < picture.shape[1] + 3 * pose.size:
            return
        draw_shoulders(picture, self.portrait.who, pose)
        self.portrait.draw(picture, self.look(t), pose)
        if self.hand[t] > 0:
            x, y, side = self.hand_at
            draw_hand(picture, self.portrait.who, pose, x, y + 3 * (1 - self.hand[t]), side)

    def truth(self, video: SyntheticVideo) -> GroundTruth:
        box = np.array([self.portrait.box(self.pose(t)) for t in range(video.frames)])
        inside = np.clip(box, 0, [video.width, video.height, video.width, video.height])
        area = np.prod(inside[:, 2:] - inside[:, :2], axis=1) / np.prod(box[:, 2:] - box[:, :2], axis=1)
        return GroundTruth(np.stack([self.valence, self.arousal], axis=1), inside, area > 0.5)


def draw_video(video: SyntheticVideo) -> list[GroundTruth]:
    """Draws and writes the video. Returns labels and boxes of each person, from left to right. Raises WorkError."""
    rng = np.random.default_rng(video.seed)
    times = _times(rng, video)
    actors = [_Actor(rng, video, times, place) for place in range(video.people)]
    try:
        with replacing(video.path) as temporary:
            _write(temporary, video, times, _draw_frames(rng, video, times, actors))
    except OSError as error:
        raise unwritable(video.path, error, CHOOSE) from error
    return [actor.truth(video) for actor in actors]


def _draw_frames(
    rng: np.random.Generator, video: SyntheticVideo, times: NDArray[np.float64], actors: list[_Actor]
) -> Iterator[Image]:
    w, h = video.width, video.height
    background = draw_background(rng, w, h)
    light = draw_light(rng, times, w, h)
    # Noise as two unsigned images, to add and to subtract.
    grain = rng.normal(0, rng.uniform(1, 4), (h + 16, w + 16))
    positive, negative = (
        np.repeat(part.astype(np.uint8)[..., None], 3, 2) for part in (grain.clip(0), -grain.clip(None, 0))
    )
    pan = np.stack([wander(rng, times, 7.0), wander(rng, times, 7.0)]) * PAN * rng.uniform(0, 1) + PAN
    ball, ball_seed = _floating(rng, times), int(rng.integers(1 << 31))
    for t in range(video.frames):
        x, y = pan[:, t]
        picture = np.asarray(cv2.getRectSubPix(background, (w, h), (x + (w - 1) / 2, y + (h - 1) / 2)), np.uint8)
        if ball is not None:
            place = Brush(picture, 0, 0, h)
            draw_ball(np.random.default_rng(ball_seed), place, ball[0, t] * w / h, ball[1, t], 0.1)
        for actor in actors:
            actor.draw(picture, t)
        i, j = rng.integers(0, 16, 2)
        window = (slice(i, i + h), slice(j, j + w))
        yield np.asarray(cv2.subtract(cv2.add(light.shine(picture, t), positive[window]), negative[window]), np.uint8)


def _floating(rng: np.random.Generator, seconds: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Positions of a ball behind the people, [2, n] in shares of the frame. None for most videos."""
    if rng.random() > 0.3:
        return None
    return 0.5 + np.stack([0.6 * wander(rng, seconds, 5.0), 0.35 * wander(rng, seconds, 5.0)])


def _eased(inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """1 inside the spans, 0 outside, with a smooth transition of a few frames."""
    width = 9
    raised = np.convolve(np.pad(inside.astype(float), width // 2, "edge"), np.hanning(width + 2)[1:-1], mode="valid")
    return np.clip(2 * raised / np.hanning(width + 2).sum(), 0, 1)


def _blinks(rng: np.random.Generator, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far the eyes are closed, [n] in [0, 1]: for a sixth of a second every few seconds."""
    moments = np.cumsum(rng.uniform(1.5, 4.5, 64))
    nearest = np.abs(seconds[:, None] - seconds[0] - moments).min(axis=1)
    return np.clip(1.4 - nearest / 0.08, 0, 1)


def _times(rng: np.random.Generator, video: SyntheticVideo) -> NDArray[np.float64]:
    """Presentation times in seconds, from 0, strictly increasing."""
    gaps = np.full(video.frames, 1 / video.rate)
    if video.variable:
        gaps *= rng.choice((0.5, 1.0, 1.5), video.frames)
    return np.concatenate([[0.0], np.cumsum(gaps)[:-1]])


def _write(path: Path, video: SyntheticVideo, times: NDArray[np.float64], pictures: Iterator[Image]) -> None:
    avi = video.path.suffix == ".avi"
    rate = Fraction(video.rate).limit_denominator(1001)
    with av.open(str(path.absolute()), "w", format="avi" if avi else "mp4") as container:
        stream = container.add_stream("mpeg4" if avi else "libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = video.width, video.height, "yuv420p"
        stream.thread_count = 1
        if avi:
            stream.bit_rate = 3_000_000
        else:
            # With mbtree, the output of x264 is not deterministic, even with one thread.
            stream.options = {"preset": "veryfast", "crf": "23", "x264-params": "mbtree=0"}
        tick = 1 / rate if avi else TICK
        stream.codec_context.time_base = tick
        for time, picture in zip(times, pictures, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = round(time / float(tick)), tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
