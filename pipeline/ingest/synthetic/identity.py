"""Who is drawn: what of a portrait does not move. Units: the head's half height is 1, its centre (0, 0), y down."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .brush import Brush, Colour, Image, mix, oval, smooth

CANVAS, CENTRE, UNIT = 512, (256.0, 268.0), 150.0
"""The canvas of a portrait: its side, the pixel of (0, 0), and the pixels of one unit."""
HAIRLINE = -0.72
"""The face, for its box, reaches from here to the chin at 1."""

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


@dataclass(frozen=True)
class Identity:
    """One person. Sizes in units; `rest_*` are the person's own resting expression, which must not give labels away."""

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
    rest_smile: float
    rest_brow: float
    rest_eye: float

    @property
    def shadow(self) -> Colour:
        """The skin where less light falls."""
        r, g, b = self.skin
        return (r * 0.74, g * 0.64, b * 0.6)


def draw_identity(rng: np.random.Generator) -> Identity:
    """A person by chance."""
    skin_index = int(rng.integers(len(_SKINS)))
    skin = _jitter(rng, _SKINS[skin_index], 8)
    hair_index = int(rng.integers(4) if skin_index > 5 else rng.integers(len(_HAIRS)))
    bearded = rng.random() < 0.4
    lashes = not bearded and rng.random() < 0.6
    styles = STYLES if not bearded else ("bald", "crop", "parted", "curly", "spiky", "receding", "long")
    lips = mix(mix(skin, (176, 62, 66), 0.45), (120, 40, 50), 0.25 if skin_index > 5 else 0.0)
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
    """The part of the outline that is face: below the hairline."""
    edge = outline(who)
    return edge[edge[:, 1] >= HAIRLINE]


def draw_head(who: Identity) -> tuple[Image, Image]:
    """The head without its moving parts: RGB [512, 512, 3] premultiplied by its opacity, and the opacity [512, 512]."""
    n = 2 * CANVAS
    image, opacity = np.full((n, n, 3), who.hair, np.uint8), np.zeros((n, n), np.uint8)
    paint = Brush(image, 2 * CENTRE[0], 2 * CENTRE[1], 2 * UNIT)
    mask = Brush(opacity, 2 * CENTRE[0], 2 * CENTRE[1], 2 * UNIT)
    for shape in _back_hair(who):
        paint.fill(shape, mix(who.hair, (0, 0, 0), 0.25))
        mask.fill(shape, (255, 255, 255))
    for x in (-1, 1):
        ear = oval(x * who.width, 0.02, 0.11, 0.2)
        paint.fill(ear, mix(who.skin, who.shadow, 0.45))
        paint.oval(x * (who.width + 0.015), 0.02, 0.05, 0.12, mix(who.skin, who.shadow, 0.9))
        mask.fill(ear, (255, 255, 255))
        if who.earrings:
            drop = oval(x * (who.width + 0.03), 0.27, 0.04, 0.05)
            paint.fill(drop, (236, 206, 110))
            mask.fill(drop, (255, 255, 255))
    edge = outline(who)
    mask.fill(edge, (255, 255, 255))
    _paint_skin(image, paint, who, edge)
    for shape in _front_hair(who):
        paint.fill(shape, who.hair)
        mask.fill(shape, (255, 255, 255))
    image = cv2.resize(image, (CANVAS, CANVAS), interpolation=cv2.INTER_AREA)
    opacity = cv2.resize(opacity, (CANVAS, CANVAS), interpolation=cv2.INTER_AREA)
    image = cv2.multiply(image, cv2.merge([opacity] * 3), scale=1 / 255)
    return image.astype(np.uint8), opacity.astype(np.uint8)


def _paint_skin(image: Image, paint: Brush, who: Identity, edge: NDArray[np.float64]) -> None:
    """Fills the head, darker to the edge, with a warm cheek."""
    n = len(image)
    area, light, cheek = (np.zeros((n, n), np.uint8) for _ in range(3))
    Brush(area, paint.x, paint.y, paint.unit).fill(edge, (255, 255, 255))
    Brush(light, paint.x, paint.y - 0.06 * paint.unit, paint.unit).fill(edge * 0.86, (255, 255, 255))
    for x in (-1, 1):
        Brush(cheek, paint.x, paint.y, paint.unit).oval(x * 0.45, 0.3, 0.17, 0.13, (255, 255, 255))
    light, cheek = (_blur(layer, 0.16 * paint.unit) for layer in (light, cheek))
    skin, shadow, blush = (
        np.asarray(colour, np.float32) for colour in (who.skin, who.shadow, mix(who.skin, (214, 84, 80), 0.5))
    )
    lit = light[..., None].astype(np.float32) / 255
    warm = cheek[..., None].astype(np.float32) / 255 * 0.55
    colour = shadow + (skin - shadow) * (0.35 + 0.65 * lit)
    colour += (blush - colour) * warm
    share = area[..., None].astype(np.float32) / 255
    image[:] = (image + (colour - image) * share).astype(np.uint8)
    if who.beard:
        _paint_beard(image, paint, who, edge)
    if who.freckles:
        spots = np.random.default_rng(int(who.skin[0] * 1000)).normal((0, 0.2), (0.3, 0.1), (40, 2))
        for x, y in spots:
            paint.oval(x, y, 0.011, 0.011, mix(who.skin, who.shadow, 0.7))


def _paint_beard(image: Image, paint: Brush, who: Identity, edge: NDArray[np.float64]) -> None:
    if who.beard == "moustache":
        return
    layer = image.copy()
    brush = Brush(layer, paint.x, paint.y, paint.unit)
    if who.beard == "goatee":
        brush.fill(smooth([(-0.2, 0.75), (0.2, 0.75), (0.22, 0.98), (0, 1.02), (-0.22, 0.98)]), who.hair)
        share = 0.9
    else:
        low = edge[edge[:, 1] >= 0.12]
        inner = [(-0.62, 0.3), (-0.45, 0.36), (-0.22, 0.34), (0, 0.31), (0.22, 0.34), (0.45, 0.36), (0.62, 0.3)]
        brush.fill(np.concatenate([low, np.asarray(inner) * (who.width / 0.78, 1)]), who.hair)
        share = 0.85 if who.beard == "full" else 0.3
        layer = _blur(layer, 0.02 * paint.unit)
    inside = np.zeros(image.shape[:2], np.uint8)
    Brush(inside, paint.x, paint.y, paint.unit).fill(edge, (255, 255, 255))
    weight = inside[..., None].astype(np.float32) / 255 * share
    image[:] = (image + (layer.astype(np.float32) - image) * weight).astype(np.uint8)


def _arc(who: Identity, grow: float, low: float = 0.0, n: int = 24) -> NDArray[np.float64]:
    """Over the crown from the left to the right, `grow` outside the head, its ends at y = low."""
    angle = np.linspace(0, np.pi, n)
    arc = np.stack([-(who.width + grow) * np.cos(angle), -(1 + grow) * np.sin(angle)], axis=1)
    return np.concatenate([[(arc[0, 0], low)], arc, [(arc[-1, 0], low)]])


def _back_hair(who: Identity) -> list[NDArray[np.float64]]:
    w = who.width
    if who.style in ("bob", "long", "scarf"):
        low = {"bob": 0.62, "long": 1.3, "scarf": 1.15}[who.style]
        flare = 0.22 if who.style != "long" else 0.3
        bottom = smooth(
            [(w + flare, low - 0.1), (w * 0.7, low + 0.06), (-w * 0.7, low + 0.06), (-w - flare, low - 0.1)], False
        )
        return [np.concatenate([_arc(who, 0.16), bottom])]
    if who.style == "curly":
        return [oval(x, y, 0.26, 0.26) for x, y in _arc(who, 0.12, 0.1, 14)]
    if who.style == "bun":
        return [oval(0, -1.2, 0.26, 0.22)]
    return []


def _front_hair(who: Identity) -> list[NDArray[np.float64]]:
    w, s = who.width, who.side
    if who.style == "bald":
        return []
    if who.style == "receding":
        return [
            smooth(
                [
                    (x * (w + 0.05), 0.0),
                    (x * (w + 0.07), -0.35),
                    (x * (w - 0.02), -0.62),
                    (x * (w - 0.12), -0.45),
                    (x * (w - 0.03), -0.15),
                ]
            )
            for x in (-1, 1)
        ]
    side = 0.05 if who.style in ("crop", "parted", "spiky", "bun", "curly") else 0.5
    plain = [(w - 0.02, -0.15), (w - 0.08, -0.5), (0.35, -0.74), (0, -0.78), (-0.35, -0.74)]
    plain += [(-w + 0.08, -0.5), (-w + 0.02, -0.15)]
    line = {
        "parted": [
            (w - 0.02, -0.2), (w - 0.1, -0.5), (0.45, -0.72), (0.1, -0.78), (-0.25, -0.9), (-0.4, -0.74),
            (-w + 0.1, -0.5), (-w + 0.02, -0.2),
        ],
        "bob": [
            (w - 0.04, 0.4), (w - 0.1, -0.3), (w - 0.16, -0.52), (0.3, -0.58), (0, -0.6), (-0.3, -0.58),
            (-w + 0.16, -0.52), (-w + 0.1, -0.3), (-w + 0.04, 0.4),
        ],
        "long": [
            (w, 0.5), (w - 0.12, -0.2), (w - 0.25, -0.6), (0.1, -0.86), (-0.05, -0.88), (-w + 0.25, -0.6),
            (-w + 0.12, -0.2), (-w, 0.5),
        ],
        "scarf": [
            (w - 0.02, 0.6), (w - 0.06, -0.2), (w - 0.2, -0.58), (0, -0.76), (-w + 0.2, -0.58), (-w + 0.06, -0.2),
            (-w + 0.02, 0.6),
        ],
    }.get(who.style, plain)  # fmt: skip
    inner = smooth(np.asarray(line) * (s if who.style == "parted" else 1, 1), closed=False)
    if who.style == "parted" and s < 0:
        inner = inner[::-1]
    shapes = [np.concatenate([_arc(who, 0.2 if who.style == "parted" else 0.1, side), inner])]
    if who.style == "spiky":
        angles = np.linspace(0.35, np.pi - 0.35, 9)
        for a in angles:
            root = [(-(w + 0.05) * np.cos(b), -1.05 * np.sin(b)) for b in (a - 0.2, a + 0.2)]
            shapes.append(np.array([root[0], (-(w + 0.3) * np.cos(a), -1.32 * np.sin(a)), root[1]]))
    if who.style == "curly":
        shapes += [oval(x, y, 0.17, 0.15) for x, y in _arc(who, -0.05, -0.3, 12)[2:-2]]
    return shapes


def _blur(image: Image, sigma: float) -> Image:
    """Gaussian blur; a wide one is done on a smaller picture, where it costs next to nothing and looks the same."""
    shrink = max(1, round(sigma / 4))
    if shrink == 1:
        return cv2.GaussianBlur(image, (0, 0), sigma).astype(np.uint8)
    h, w = image.shape[:2]
    small = cv2.resize(image, (w // shrink, h // shrink), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / shrink)
    return cv2.resize(small, (w, h), interpolation=cv2.INTER_LINEAR).astype(np.uint8)


def _jitter(rng: np.random.Generator, colour: tuple[int, int, int], spread: float) -> Colour:
    r, g, b = np.clip(np.asarray(colour) + rng.uniform(-spread, spread), 0, 255)
    return (float(r), float(g), float(b))
