"""FER+-shaped faces: 48 x 48 grey pictures of drawn people, with ten votes each that follow the same plane."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from .faces import Expression, Portrait, Pose
from .identity import draw_identity

FACES = 3000
SIZE = 48
PER_PERSON, PER_PORTION = 10, 250
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
"""By class, in the order of FER+: where it lies in the plane, and what else shows it."""
CONFUSED = (7, 0, 6, 0, 5, 4, 2, 0)
"""The class that a doubtful voter takes it for."""
FER_LABEL = (6, 3, 5, 4, 0, 1, 2, 6)
"""The class's number in fer2013.csv."""


@dataclass(frozen=True)
class Portion:
    """Some rows of the two files: `count` of them from row `first`, all of one part, of people of their own."""

    usage: str
    first: int
    count: int
    seed: int


def portions(faces: int, seed: int) -> list[Portion]:
    """What the files consist of: about `faces` training faces and an eighth of that for each test part."""
    found: list[Portion] = []
    first = 0
    for usage, count in (("Training", faces), ("PublicTest", faces // 8), ("PrivateTest", faces // 8)):
        for start in range(0, count, PER_PORTION):
            size = min(PER_PORTION, count - start)
            found.append(Portion(usage, first, size, seed))
            first += size
    return found


def draw_portion(portion: Portion) -> tuple[list[str], list[str]]:
    """The rows of fer2013.csv and those of fer2013new.csv."""
    rng = np.random.default_rng((portion.seed, 48, portion.first))
    pixels, ballots, who = [], [], Portrait(draw_identity(rng))
    for k in range(portion.count):
        if k % PER_PERSON == 0:
            who = Portrait(draw_identity(rng))
        kind, nothing = int(rng.choice(len(SHARE), p=SHARE)), rng.random() < 0.02
        face = _nothing(rng) if nothing else _face(rng, who, kind)
        name = "" if rng.random() < 0.005 else f"fer{portion.first + k:07d}.png"
        votes = ",".join(map(str, _votes(rng, kind, nothing)))
        pixels.append(f"{FER_LABEL[kind]},{' '.join(map(str, face.ravel().tolist()))},{portion.usage}")
        ballots.append(f"{portion.usage},{name},{votes}")
    return pixels, ballots


def write_ferplus(folder: Path, drawn: Iterable[tuple[list[str], list[str]]]) -> int:
    """Writes fer2013.csv and fer2013new.csv from the portions in their order; returns the number of faces."""
    pixels, ballots = ["emotion,pixels,Usage"], [COLUMNS]
    for some_pixels, some_ballots in drawn:
        pixels += some_pixels
        ballots += some_ballots
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fer2013.csv").write_text("\n".join(pixels) + "\n", encoding="utf-8")
    (folder / "fer2013new.csv").write_text("\n".join(ballots) + "\n", encoding="utf-8")
    return len(ballots) - 1


def _face(rng: np.random.Generator, who: Portrait, kind: int) -> NDArray[np.uint8]:
    """A 48 x 48 grey picture of the person with a look near the class's prototype."""
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


def _nothing(rng: np.random.Generator) -> NDArray[np.uint8]:
    """No face at all."""
    small = rng.integers(0, 255, (6, 6)).astype(np.uint8)
    return np.asarray(cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC), np.uint8)


def _votes(rng: np.random.Generator, kind: int, nothing: bool) -> list[int]:
    """Ten votes over the eight classes, unknown and NF."""
    share = np.zeros(10)
    if nothing:
        share[9] = 1
    elif rng.random() < 0.04:
        share[[kind, 8]] = 0.5
    else:
        share[[kind, CONFUSED[kind]]] = 0.82, 0.18
    return rng.multinomial(10, share).tolist()
