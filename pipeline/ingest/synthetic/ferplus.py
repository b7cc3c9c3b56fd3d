"""Draws faces in the format of FER+: 48 x 48 grey images with ten votes each."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ...storage.atomic import write_text
from .faces import Expression, Portrait, Pose
from .identity import draw_identity

FACES = 3000
"""Default number of training faces."""
SIZE = 48
FACES_PER_PERSON, FACES_PER_PORTION = 10, 250
COLUMNS = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
SHARE = (0.22, 0.20, 0.13, 0.13, 0.12, 0.07, 0.07, 0.06)
PROTOTYPE = (
    Expression(0.0, -0.15, 0.0),
    Expression(0.8, 0.25, 0.0),
    Expression(0.1, 0.9, 0.0),
    Expression(-0.75, -0.5, -0.5),
    Expression(-0.75, 0.45, 1.0),
    Expression(-0.6, 0.0, 0.2, wrinkle=1.0),
    Expression(-0.55, 0.85, -1.0),
    Expression(0.05, -0.3, 0.3, smirk=1.0),
)
"""A typical expression of each class, in the order of FER+."""
CONFUSED = (7, 0, 6, 0, 5, 4, 2, 0)
"""For each class, the class with which voters confuse it."""
FER_LABEL = (6, 3, 5, 4, 0, 1, 2, 6)
"""For each class, its number in fer2013.csv."""


@dataclass(frozen=True)
class Portion:
    """Some rows of the two files: `count` rows from row `first`, with one usage and their own people."""

    usage: str
    first: int
    count: int
    seed: int


def portions(faces: int, seed: int) -> list[Portion]:
    """Splits the rows of the files: about `faces` training faces, and an eighth of that for each test usage."""
    found: list[Portion] = []
    first = 0
    for usage, count in (("Training", faces), ("PublicTest", faces // 8), ("PrivateTest", faces // 8)):
        for start in range(0, count, FACES_PER_PORTION):
            size = min(FACES_PER_PORTION, count - start)
            found.append(Portion(usage, first, size, seed))
            first += size
    return found


def draw_portion(portion: Portion) -> tuple[list[str], list[str]]:
    """Draws a portion. Returns its rows of fer2013.csv and of fer2013new.csv."""
    rng = np.random.default_rng((portion.seed, 48, portion.first))
    pixels, rows, who = [], [], Portrait(draw_identity(rng))
    for k in range(portion.count):
        if k % FACES_PER_PERSON == 0:
            who = Portrait(draw_identity(rng))
        kind, no_face = int(rng.choice(len(SHARE), p=SHARE)), rng.random() < 0.02
        face = _draw_no_face(rng) if no_face else _draw_face(rng, who, kind)
        name = "" if rng.random() < 0.005 else f"fer{portion.first + k:07d}.png"
        votes = ",".join(map(str, _draw_votes(rng, kind, no_face)))
        pixels.append(f"{FER_LABEL[kind]},{' '.join(map(str, face.ravel().tolist()))},{portion.usage}")
        rows.append(f"{portion.usage},{name},{votes}")
    return pixels, rows


def write_ferplus(folder: Path, drawn: Iterable[tuple[list[str], list[str]]]) -> int:
    """Writes fer2013.csv and fer2013new.csv from the sorted portions. Returns the number of faces."""
    pixels, votes = ["emotion,pixels,Usage"], [COLUMNS]
    for more_pixels, more_votes in drawn:
        pixels += more_pixels
        votes += more_votes
    write_text(folder / "fer2013.csv", "\n".join(pixels) + "\n", "another folder")
    write_text(folder / "fer2013new.csv", "\n".join(votes) + "\n", "another folder")
    return len(votes) - 1


def _draw_face(rng: np.random.Generator, who: Portrait, kind: int) -> NDArray[np.uint8]:
    """A 48 x 48 grey image of the person with an expression near the prototype of the class."""
    p = PROTOTYPE[kind]
    valence, arousal, dominance = np.clip(rng.normal((p.valence, p.arousal, p.dominance), 0.1), -1, 1).tolist()
    look = replace(
        p,
        valence=valence,
        arousal=arousal,
        dominance=dominance,
        smirk=p.smirk * float(rng.uniform(0.75, 1)),
        wrinkle=p.wrinkle * float(rng.uniform(0.75, 1)),
        gaze=(float(rng.uniform(-1, 1)), float(rng.uniform(-1, 1))),
    )
    side = 2 * SIZE
    picture = np.full((side, side, 3), rng.uniform(20, 235), np.uint8)
    size = side / 2 / rng.uniform(0.95, 1.15)
    turn = (float(rng.uniform(-1, 1)), float(rng.uniform(-1, 1)))
    pose = Pose(side / 2 + rng.normal(0, 2), side * 0.44 + rng.normal(0, 2), size, float(rng.normal(0, 7)), turn)
    who.draw(picture, look, pose)
    grey = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    lit = grey * rng.uniform(0.8, 1.2) + rng.uniform(-15, 15) + rng.normal(0, 4, grey.shape)
    return np.clip(lit, 0, 255).astype(np.uint8)


def _draw_no_face(rng: np.random.Generator) -> NDArray[np.uint8]:
    """A blurred random texture."""
    small = rng.integers(0, 255, (6, 6)).astype(np.uint8)
    return np.asarray(cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC), np.uint8)


def _draw_votes(rng: np.random.Generator, kind: int, no_face: bool) -> list[int]:
    """Ten votes for the eight classes, unknown and NF (no face)."""
    share = np.zeros(10)
    if no_face:
        share[9] = 1
    elif rng.random() < 0.04:
        share[[kind, 8]] = 0.5
    else:
        share[[kind, CONFUSED[kind]]] = 0.82, 0.18
    return rng.multinomial(10, share).tolist()
