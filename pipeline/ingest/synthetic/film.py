"""One demo video: its people act out their signals, the camera watches, PyAV writes, labels and boxes are kept."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from .brush import Image
from .faces import Expression, Portrait, Pose
from .identity import draw_identity
from .scenes import PAN, draw_background, draw_hand, draw_light, draw_shoulders, spans, tremble, wander

TICK = Fraction(1, 90000)


@dataclass(frozen=True)
class Film:
    """What to draw. rate: frames per second; variable: frames come at uneven times around it."""

    path: Path
    seed: int
    frames: int
    rate: float
    people: int = 1
    width: int = 640
    height: int = 360
    variable: bool = False


@dataclass(frozen=True)
class Acted:
    """What one person of a film did. label: float64 [n, 2] valence, arousal. box: float64 [n, 4]; seen: bool [n]."""

    label: NDArray[np.float64]
    box: NDArray[np.float64]
    seen: NDArray[np.bool_]


class _Actor:
    """One person with all that moves, over the whole film."""

    def __init__(self, rng: np.random.Generator, film: Film, seconds: NDArray[np.float64], place: int) -> None:
        n, h, w = film.frames, film.height, film.width
        self.portrait = Portrait(draw_identity(rng))
        self.valence, self.arousal = wander(rng, seconds, 3.0), wander(rng, seconds, 3.0)
        self.shown = np.clip(0.85 * self.arousal + 0.15 * wander(rng, seconds, 2.0), -1, 1)
        self.dominance, self.gaze = wander(rng, seconds, 4.0), np.stack([wander(rng, seconds, 2.0) for _ in range(2)])
        largest = 0.7 if film.people == 1 else 0.42
        share = np.exp(rng.uniform(np.log(0.22), np.log(largest * 0.95))) * (1 + 0.06 * wander(rng, seconds, 5.0))
        self.size = np.clip(share, 0.2, largest) * h / 1.72
        unrest = 0.012 + 0.05 * (self.arousal + 1) / 2
        middle = (0.5,) if film.people == 1 else (0.25, 0.75)
        room = 0.22 if film.people == 1 else 0.04
        self.x = w * (middle[place] + room * wander(rng, seconds, 6.0)) + self.size * unrest * tremble(rng, n)
        self.y = h * (0.47 + 0.10 * wander(rng, seconds, 6.0)) + self.size * unrest * tremble(rng, n)
        self.roll = 14 * wander(rng, seconds, 4.0) + 70 * unrest * tremble(rng, n)
        self.turn = np.stack([wander(rng, seconds, 3.0), wander(rng, seconds, 3.0)])
        self.blink = _blinks(rng, seconds)
        self.away = spans(rng, n, 1, 0.09) if rng.random() < 0.45 else np.zeros(n, bool)
        self.hand = spans(rng, n, 1, 0.08) if rng.random() < 0.4 else np.zeros(n, bool)
        self.hand_at = (float(rng.uniform(-0.5, 0.5)), float(rng.uniform(0.45, 0.95)), int(rng.choice((-1, 1))))

    def pose(self, t: int) -> Pose:
        turn = (float(self.turn[0, t]), float(self.turn[1, t]))
        return Pose(float(self.x[t]), float(self.y[t]), float(self.size[t]), float(self.roll[t]), turn)

    def look(self, t: int) -> Expression:
        gaze = (float(self.gaze[0, t]), float(self.gaze[1, t]))
        return Expression(
            float(self.valence[t]),
            float(self.shown[t]),
            float(self.dominance[t]),
            blink=float(self.blink[t]),
            gaze=gaze,
        )

    def draw(self, picture: Image, t: int) -> None:
        if self.away[t]:
            return
        pose = self.pose(t)
        draw_shoulders(picture, self.portrait.who, pose)
        self.portrait.draw(picture, self.look(t), pose)
        if self.hand[t]:
            draw_hand(picture, self.portrait.who, pose, *self.hand_at)

    def acted(self, film: Film) -> Acted:
        box = np.array([self.portrait.box(self.pose(t)) for t in range(film.frames)])
        inside = np.clip(box, 0, [film.width, film.height, film.width, film.height])
        area = np.prod(inside[:, 2:] - inside[:, :2], axis=1) / np.prod(box[:, 2:] - box[:, :2], axis=1)
        return Acted(np.stack([self.valence, self.arousal], axis=1), inside, ~self.away & (area > 0.3))


def draw_film(film: Film) -> list[Acted]:
    """Draws and writes the video; returns what each person did, from left to right."""
    rng = np.random.default_rng(film.seed)
    times = _times(rng, film)
    actors = [_Actor(rng, film, times, place) for place in range(film.people)]
    film.path.parent.mkdir(parents=True, exist_ok=True)
    _write(film, times, _pictures(rng, film, times, actors))
    return [actor.acted(film) for actor in actors]


def _pictures(
    rng: np.random.Generator, film: Film, times: NDArray[np.float64], actors: list[_Actor]
) -> Iterator[Image]:
    background = draw_background(rng, film.width, film.height)
    light = draw_light(rng, times, film.width, film.height)
    grain = rng.normal(0, rng.uniform(1, 4), (film.height + 16, film.width + 16)).astype(np.int16)
    pan = np.stack([wander(rng, times, 7.0), wander(rng, times, 7.0)]) * PAN * rng.uniform(0, 1) + PAN
    for t in range(film.frames):
        x, y = pan[:, t].astype(int).clip(0, 2 * PAN)
        picture = background[y : y + film.height, x : x + film.width].copy()
        for actor in actors:
            actor.draw(picture, t)
        lit = light.shine(picture, t)
        i, j = rng.integers(0, 16, 2)
        noisy = lit + grain[i : i + film.height, j : j + film.width, None]
        yield np.clip(noisy, 0, 255).astype(np.uint8)


def _blinks(rng: np.random.Generator, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Eyes shut for a sixth of a second every few seconds. [n] in [0, 1]."""
    moments = np.cumsum(rng.uniform(1.5, 4.5, 64))
    nearest = np.abs(seconds[:, None] - seconds[0] - moments).min(axis=1)
    return np.clip(1.4 - nearest / 0.08, 0, 1)


def _times(rng: np.random.Generator, film: Film) -> NDArray[np.float64]:
    """Presentation times in seconds, from 0, strictly increasing."""
    gaps = np.full(film.frames, 1 / film.rate)
    if film.variable:
        gaps *= rng.choice((0.5, 1.0, 1.5), film.frames)
    return np.concatenate([[0.0], np.cumsum(gaps)[:-1]])


def _write(film: Film, times: NDArray[np.float64], pictures: Iterator[Image]) -> None:
    avi = film.path.suffix == ".avi"
    rate = Fraction(film.rate).limit_denominator(1001)
    with av.open(str(film.path), "w") as container:
        stream = container.add_stream("mpeg4" if avi else "libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = film.width, film.height, "yuv420p"
        stream.thread_count = 1
        if avi:
            stream.bit_rate = 3_000_000
        else:
            stream.options = {"preset": "veryfast", "crf": "20"}
        tick = 1 / rate if avi else TICK
        stream.codec_context.time_base = tick
        for time, picture in zip(times, pictures, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = round(time / float(tick)), tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
