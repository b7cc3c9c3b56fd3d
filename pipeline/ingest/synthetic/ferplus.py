"""FER+-shaped faces: 48 x 48 grey pictures of the demo's people, with ten votes each that follow the same plane."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from .faces import Expression, Portrait, Pose
from .identity import draw_identity

FACES = 3000
SIZE = 48
PER_PERSON = 10
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


def draw_ferplus(folder: Path, faces: int, seed: int) -> int:
    """Writes fer2013.csv and fer2013new.csv of about `faces` training faces and an eighth of that for each test part.

    No person is in two parts. Returns the number of faces.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng((seed, 48))
    pixels, votes = ["emotion,pixels,Usage"], [COLUMNS]
    for usage, count in (("Training", faces), ("PublicTest", faces // 8), ("PrivateTest", faces // 8)):
        who = Portrait(draw_identity(rng))
        for k in range(count):
            if k % PER_PERSON == 0:
                who = Portrait(draw_identity(rng))
            kind = int(rng.choice(len(SHARE), p=SHARE))
            nothing = rng.random() < 0.02
            face = _nothing(rng) if nothing else _face(rng, who, kind)
            row = len(votes) - 1
            name = "" if rng.random() < 0.005 else f"fer{row:07d}.png"
            ballot = ",".join(str(vote) for vote in _votes(rng, kind, nothing))
            pixels.append(f"{FER_LABEL[kind]},{' '.join(map(str, face.ravel().tolist()))},{usage}")
            votes.append(f"{usage},{name},{ballot}")
    (folder / "fer2013.csv").write_text("\n".join(pixels) + "\n", encoding="utf-8")
    (folder / "fer2013new.csv").write_text("\n".join(votes) + "\n", encoding="utf-8")
    return len(votes) - 1


def _face(rng: np.random.Generator, who: Portrait, kind: int) -> NDArray[np.uint8]:
    """A 48 x 48 grey picture of the person with a look near the class's prototype."""
    p = PROTOTYPE[kind]
    shift = rng.normal(0, 0.1, 3)
    look = Expression(
        float(np.clip(p.valence + shift[0], -1, 1)),
        float(np.clip(p.arousal + shift[1], -1, 1)),
        float(np.clip(p.dominance + shift[2], -1, 1)),
        smirk=p.smirk * float(rng.uniform(0.75, 1)),
        wrinkle=p.wrinkle * float(rng.uniform(0.75, 1)),
        gaze=(float(rng.uniform(-1, 1)), float(rng.uniform(-1, 1))),
    )
    side = 2 * SIZE
    picture = np.full((side, side, 3), rng.uniform(20, 235), np.uint8)
    size = side / 2 / rng.uniform(0.95, 1.15)
    pose = Pose(side / 2 + rng.normal(0, 2), side * 0.44 + rng.normal(0, 2), size, float(rng.normal(0, 7)))
    who.draw(picture, look, pose)
    grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.float32)
    grey = cv2.resize(grey, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    lit = grey * rng.uniform(0.7, 1.2) + rng.uniform(-15, 15) + rng.normal(0, 4, grey.shape)
    return np.clip(lit, 0, 255).astype(np.uint8)


def _nothing(rng: np.random.Generator) -> NDArray[np.uint8]:
    """No face at all."""
    small = rng.integers(0, 255, (6, 6)).astype(np.uint8)
    return np.asarray(cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC), np.uint8)


def _votes(rng: np.random.Generator, kind: int, nothing: bool) -> list[int]:
    """Ten votes over the eight classes, unknown and NF."""
    votes = [0] * 10
    if nothing:
        votes[9] = 10
        return votes
    unsure = rng.random() < 0.04
    for _ in range(10):
        chance = rng.random()
        if unsure and chance < 0.5:
            votes[8] += 1
        elif chance > 0.82:
            votes[CONFUSED[kind]] += 1
        else:
            votes[kind] += 1
    return votes
