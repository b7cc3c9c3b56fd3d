"""The fixed features of a person. Units: half the height of the head is 1, its centre is (0, 0), y points down."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .brush import Colour, mix

CANVAS, CENTRE, UNIT = 512, (256.0, 268.0), 150.0
"""Side of the portrait in pixels, the pixel of (0, 0), and the pixels of one unit."""
HAIRLINE = -0.72
"""Upper end of the face box. The lower end is the chin at 1."""

_SKINS = (
    (255, 224, 196), (247, 208, 176), (241, 194, 155), (228, 178, 138), (215, 160, 118), (198, 140, 98),
    (172, 116, 78), (146, 95, 62), (118, 76, 50), (92, 60, 42),
)  # fmt: skip
_HAIRS = (
    (38, 30, 30), (62, 42, 32), (92, 62, 40), (130, 86, 48), (178, 128, 70), (222, 186, 118), (160, 72, 36),
    (120, 120, 124), (205, 205, 205), (70, 60, 90),
)  # fmt: skip
_EYES = ((74, 48, 30), (96, 66, 36), (60, 104, 140), (84, 120, 84), (110, 120, 130))
_CLOTHES = (
    (52, 84, 120), (160, 60, 62), (70, 110, 82), (224, 222, 214), (48, 50, 58), (206, 150, 60), (120, 88, 140),
    (88, 150, 160), (196, 120, 110), (110, 92, 76),
)  # fmt: skip
STYLES = ("bald", "crop", "parted", "bob", "long", "curly", "bun", "spiky", "receding", "scarf")
TOPS = ("crew", "shirt", "stripes", "hood", "jacket")


@dataclass(frozen=True)
class Identity:
    """One person. Sizes in units. `rest_*`: the expression at rest, which is not part of the labels."""

    skin: Colour
    hair: Colour
    eye: Colour
    lips: Colour
    clothes: Colour
    style: str
    side: float
    width: float
    jaw: float
    chin: float
    eye_gap: float
    eye_size: float
    eye_tilt: float
    brow: float
    nose: float
    nose_length: float
    mouth: float
    lip: float
    glasses: str
    beard: str
    freckles: bool
    lashes: bool
    earrings: bool
    age: float
    top: str
    rest_smile: float
    rest_brow: float
    rest_eye: float

    @property
    def cover(self) -> Colour:
        """Colour of the hair, or of the scarf."""
        r, g, b = self.clothes
        return (0.5 * g + 90, 0.5 * b + 70, 0.5 * r + 60) if self.style == "scarf" else self.hair

    @property
    def shadow(self) -> Colour:
        """Colour of the skin in shadow."""
        r, g, b = self.skin
        return (r * 0.74, g * 0.64, b * 0.6)


def draw_identity(rng: np.random.Generator) -> Identity:
    """A random person."""
    skin_index = int(rng.integers(len(_SKINS)))
    skin = _jitter(rng, _SKINS[skin_index], 8)
    hair_index = int(rng.integers(4) if skin_index > 5 else rng.integers(len(_HAIRS)))
    bearded = rng.random() < 0.4
    lashes = not bearded and rng.random() < 0.6
    styles = STYLES if not bearded else ("bald", "crop", "parted", "curly", "spiky", "receding", "long")
    lips = mix(skin, (188, 70, 74), 0.5 if skin_index > 5 else 0.45)
    return Identity(
        skin=skin, hair=_jitter(rng, _HAIRS[hair_index], 8), eye=_EYES[rng.integers(2 if skin_index > 5 else 5)],
        lips=mix(lips, (190, 40, 60), 0.45 * rng.random() if lashes else 0.0),
        clothes=_jitter(rng, _CLOTHES[rng.integers(len(_CLOTHES))], 12),
        style=str(rng.choice(styles)), side=float(rng.choice((-1.0, 1.0))),
        width=rng.uniform(0.70, 0.84), jaw=rng.uniform(1.9, 3.2), chin=rng.uniform(1.5, 2.3),
        eye_gap=rng.uniform(0.30, 0.36), eye_size=rng.uniform(0.88, 1.12), eye_tilt=rng.uniform(-0.02, 0.03),
        brow=rng.uniform(0.045, 0.085), nose=rng.uniform(0.11, 0.17), nose_length=rng.uniform(0.20, 0.29),
        mouth=rng.uniform(0.27, 0.34), lip=rng.uniform(0.7, 1.3),
        glasses=str(rng.choice(("", "round", "square"), p=(0.7, 0.15, 0.15))),
        beard=str(rng.choice(("full", "moustache", "stubble", "goatee"))) if bearded else "",
        freckles=bool(rng.random() < 0.15), lashes=lashes, earrings=bool(lashes and rng.random() < 0.4),
        age=float(max(0.0, rng.uniform(-0.6, 1.0))),
        top=str(rng.choice(TOPS)),
        rest_smile=rng.normal(0, 0.05), rest_brow=rng.normal(0, 0.08), rest_eye=rng.normal(0, 0.03),
    )  # fmt: skip


def outline(who: Identity) -> NDArray[np.float64]:
    """The edge of the head, [n, 2] in units, clockwise from the left ear over the crown."""
    up = np.linspace(0, np.pi, 32)
    crown = np.stack([-who.width * np.cos(up), -np.sin(up)], axis=1)
    down = np.linspace(0, np.pi, 41)[1:-1]
    c, s = np.cos(down), np.sin(down)
    jaw = np.stack([who.width * np.sign(c) * np.abs(c) ** (2 / who.jaw), s ** (2 / who.chin)], axis=1)
    return np.concatenate([crown, jaw])


def face_outline(who: Identity) -> NDArray[np.float64]:
    """The part of the outline below the hairline."""
    edge = outline(who)
    return edge[edge[:, 1] >= HAIRLINE]


def _jitter(rng: np.random.Generator, colour: tuple[int, int, int], spread: float) -> Colour:
    r, g, b = np.clip(np.asarray(colour) + rng.uniform(-spread, spread), 0, 255)
    return (float(r), float(g), float(b))
