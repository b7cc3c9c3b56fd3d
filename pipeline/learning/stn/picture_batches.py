"""Training batches for the STN from pictures with face boxes, alone or together with frames of videos."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from ....models.stn import SpatialTransformer
from ....models.theta import theta_from_corners
from ...ingest.boxed_pictures import held_out, read_pictures
from ...records import Problem
from ..prefetch import prefetch_reserving_cores
from .compose import MAX_FACES, Composer, Source, load_sources
from .objective import LOADER_THREADS, concatenate, draw_batches
from .train_data import BoxedImages, ImagePool, draw_batch
from .views import VIEWS, draw_views, prominence

VALIDATION = 0.1
"""Share of the people whose pictures validate."""
MAX_VALIDATION = 1000
"""Pictures that validate; more would take longer than an epoch."""


@dataclass(frozen=True)
class PictureSet:
    """training: pictures to compose from. truth: pictures of other people, as they are, with the main face of each."""

    training: list[Source]
    truth: BoxedImages


def load_picture_set(folders: Sequence[Path], side: int) -> tuple[PictureSet, list[Problem]]:
    """The pictures of these folders in memory, those for validation at side x side. A picture that cannot be read is a
    Problem. Raises BoxError where a boxes.csv is invalid."""
    pictures = [picture for folder in folders for picture in read_pictures(folder)]
    judges, others = (
        [it for it in pictures if held_out(it.name, VALIDATION, "validation") is held] for held in (True, False)
    )
    training, problems = load_sources(others)
    judging, more = load_sources(judges)
    few = judging[:: math.ceil(len(judging) / MAX_VALIDATION)] if judging else []
    return PictureSet(training, concatenate([_as_it_is(source, side) for source in few])), problems + more


@dataclass(frozen=True)
class Mixture:
    """What batches are made of: frames of videos, composed pictures, or both in the ratio of their numbers.

    batch: the number of views in a batch; of frames alone, it may be less. scout: see draw_views.
    """

    frames: ImagePool | None
    composer: Composer | None
    batch: int
    scout: SpatialTransformer | None = None

    def composed(self) -> int:
        """Composed pictures in a batch. Each gives VIEWS views."""
        if self.composer is None:
            return 0
        share = self._views() / (self._views() + len(self.frames or ()))
        return max(1, round(self.batch * share / VIEWS))

    def own(self) -> int:
        """Frames in a batch."""
        if self.composer is None:
            return min(self.batch, len(self.frames or ()))
        return max(0, self.batch - VIEWS * self.composed()) if self.frames else 0

    def steps(self) -> int:
        """Batches of an epoch, which has VIEWS views for each picture, and each frame once."""
        return max(1, (len(self.frames or ()) + self._views()) // (self.own() + VIEWS * self.composed()))

    def _views(self) -> int:
        return VIEWS * self.composer.count if self.composer else 0


def draw_mixed_batches(mixture: Mixture, view: int, seed: int, device: torch.device) -> Iterator[BoxedImages]:
    """One epoch of augmented batches at view x view (float 0..255), prefetched. The same seed gives the same."""
    composer, album = mixture.composer, mixture.frames
    if composer is None:
        assert album is not None
        return draw_batches(album, view, mixture.own(), seed, device)
    generator = torch.Generator().manual_seed(seed)
    own, composed = mixture.own(), mixture.composed()
    seeds = torch.randint(2**60, (mixture.steps(),), generator=generator).tolist()
    rows = _endless_rows(len(album or ()), own * len(seeds), generator)

    def make(number: int) -> BoxedImages:
        draw = torch.Generator().manual_seed(seeds[number])
        parts = [_composed(composer, composed, view, draw, mixture.scout)]
        if album and own:
            some = rows[number * own : (number + 1) * own]
            parts.append(_with_all_faces(draw_batch(album, some, view, draw, torch.device("cpu"))))
        names = ("pixels", "theta", "face", "all_faces")
        return BoxedImages(*(torch.cat([getattr(part, name) for part in parts]).to(device) for name in names))

    return prefetch_reserving_cores(range(len(seeds)), make, loaders=LOADER_THREADS)


def _composed(
    composer: Composer, count: int, view: int, generator: torch.Generator, scout: SpatialTransformer | None
) -> BoxedImages:
    rng = np.random.default_rng(torch.randint(2**60, (1,), generator=generator).tolist())
    pictures, faces = [], torch.full((count, MAX_FACES, 2, 3), math.nan)
    for number in range(count):
        pixels, thetas = composer.draw(rng)
        pictures.append(pixels)
        faces[number, : len(thetas)] = torch.from_numpy(thetas)
    return draw_views(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2), faces, view, generator, scout)


def _with_all_faces(batch: BoxedImages) -> BoxedImages:
    faces = torch.full((len(batch), MAX_FACES, 2, 3), math.nan)
    faces[:, 0] = torch.where((batch.face == 1)[:, None, None], batch.theta, math.nan)
    return BoxedImages(batch.pixels, batch.theta, batch.face, faces)


def _endless_rows(n: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` rows below n: each row once in random order, and again where they are too few."""
    if not n or not count:
        return torch.zeros(0, dtype=torch.long)
    return torch.cat([torch.randperm(n, generator=generator) for _ in range(math.ceil(count / n))])[:count]


def _as_it_is(source: Source, side: int) -> BoxedImages:
    pixels = source.decode()
    height, width = pixels.shape[:2]
    square = np.asarray(cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
    theta = theta_from_corners(torch.from_numpy(source.corners), width, height)
    face = torch.tensor([len(theta) > 0])
    main = theta[prominence(theta[None])[0].argmax()][None] if len(theta) else torch.eye(2, 3)[None]
    return BoxedImages(torch.from_numpy(square).permute(2, 0, 1)[None], main, face)
