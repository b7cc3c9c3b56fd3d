"""Where each frame's crop comes from: the STN, the boxes, the provided crops or the whole picture. One way for all
stages, so that a backbone is cached as it was adapted."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...configs.schema import Config
from ..errors import BoxError, InputError, ShardError
from ..ingest.align import align
from ..ingest.annotations import arousal_beside, is_affwild, read_labels
from ..ingest.boxes import read_boxes
from ..records import Aligned, Boxes, Region, Subject, Video, Work
from ..storage.fingerprint import content_digest, folder_digest
from ..storage.shard import FrameShard
from .extract_frames import frames_fingerprint

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ...models.pyramid import Pyramid
    from ...models.stn import SpatialTransformer


CROP_BYTES = 1 << 24
"""Of the largest file that is read as a provided crop; those of the release have some thousand."""


@dataclass(frozen=True)
class Places:
    """Crops known without the STN. theta: float32 [n, 2, 3]. presence: float32 [n], 1 where a face is known to be.

    crops: the provided pictures that stand for the frames, the nearest one where a frame has none.
    """

    theta: NDArray[np.float32]
    presence: NDArray[np.float32]
    crops: tuple[Path, ...] | None = None


def known_places(config: Config, subject: Subject, index: NDArray[np.int64], width: int, height: int) -> Places | None:
    """Where the config says to look in frames `index` of a width x height video; None: ask the STN.

    Raises BoxError or InputError where the subject has not what stn.localiser asks for.
    """
    match config.stn.localiser:
        case "stn":
            return None
        case "none":
            return _fixed(subject.region, len(index), config.stn.margin)
        case "aligned":
            whole = _fixed((0.0, 0.0, 1.0, 1.0), len(index), config.stn.margin)
            files = _crops(subject)
            there = np.array(list(files), np.int64)
            paths = [files[number] for number in there[nearest(there, index)].tolist()]
            return Places(whole.theta, np.isin(index, there).astype(np.float32), tuple(paths))
        case "box":
            if subject.boxes is None:
                raise BoxError(
                    f"{subject.name} has no boxes", "Run `affect detect-boxes`, or set stn.localiser to stn."
                )
            return _boxed(_boxes(subject.boxes, subject.boxes.stat().st_mtime_ns), index, width, height)


def fresh_frames(config: Config, video: Video, work: Work) -> Path | None:
    """The shard of a video's frames; None where there is none, or one of an older video or other settings. Raises
    ShardError where it is damaged."""
    path = work.frames(video.name)
    if not path.is_file():
        return None
    with FrameShard(path) as shard:
        return path if shard.fingerprint == frames_fingerprint(config, video.path) else None


def labels_of(subject: Subject, shard: FrameShard) -> Aligned:
    """The subject's labels, row by row of its video's shard. Raises AnnotationError, AlignmentError, ShardError."""
    index, lost = shard.read("index"), frozenset(shard.attributes["lost"])
    aligned = align(read_labels(subject.annotation), len(index) + len(lost), lost=lost)
    if not np.array_equal(aligned.index, index):
        shard.condemn()
        raise ShardError(
            f"{shard.path}: its frame numbers have holes that `lost` does not name",
            "Run `affect extract-frames` again.",
        )
    return aligned


def annotation_digest(subject: Subject) -> list[str]:
    """Of all files that hold the subject's labels."""
    files = [subject.annotation]
    if is_affwild(subject.annotation):
        files.append(arousal_beside(subject.annotation))
    return [content_digest(path) for path in files]


def place_digest(config: Config, subject: Subject) -> str | None:
    """Of the files, other than the video, that say where to look."""
    if config.stn.localiser == "box":
        return boxes_digest(subject)
    if config.stn.localiser == "aligned" and subject.crops is not None:
        return folder_digest(subject.crops)
    return None


def boxes_digest(subject: Subject) -> str | None:
    """Of the subject's box file, or of its folder of them; None where it has none. Raises InputError."""
    if subject.boxes is None:
        return None
    return content_digest(subject.boxes) if subject.boxes.is_file() else folder_digest(subject.boxes)


def crop_files(subject: Subject) -> dict[int, Path]:
    """The provided crops by frame, rising: %05d.jpg counts from 1, frames from 0. Raises InputError."""
    if subject.crops is None or not subject.crops.is_dir():
        raise InputError(
            f"{subject.name} has no provided crops", "Restore cropped_aligned, or set stn.localiser to stn."
        )
    found = {int(path.stem) - 1: path for path in subject.crops.glob("*.jpg") if path.stem.isdigit()}
    if not found:
        raise InputError(f"{subject.crops}: holds no crop", "Restore cropped_aligned, or set stn.localiser to stn.")
    return dict(sorted(found.items()))


def read_crops(files: Sequence[Path], size: int) -> "Tensor":
    """Pictures, uint8 [n, 3, size, size]."""
    import torch
    import torch.nn.functional as F

    from ..storage.jpeg import decode

    pictures = []
    for path in files:
        try:
            if path.stat().st_size > CROP_BYTES:
                raise OSError(f"it has {path.stat().st_size:,} bytes, expected at most {CROP_BYTES:,}")
            picture = decode([np.fromfile(path, np.uint8)]).float()
        except (OSError, RuntimeError) as error:
            raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())[:120]})", "Restore it.") from error
        pictures.append(F.interpolate(picture, (size, size), mode="bilinear", antialias=True, align_corners=False))
    return torch.cat(pictures).round().clamp(0, 255).to(torch.uint8)


def nearest(known: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each wanted number the place of the nearest known one; of two as near, the earlier. known: rising."""
    after = np.searchsorted(known, wanted).clip(0, len(known) - 1)
    before = (after - 1).clip(0)
    return np.where(np.abs(known[before] - wanted) <= np.abs(known[after] - wanted), before, after)


def find(
    stn: "SpatialTransformer",
    frames: "Tensor | Pyramid",
    region: Region,
    places: Places | None,
    rows: slice,
    device: "torch.device",
) -> tuple["Tensor", "Tensor"]:
    """(theta [n, 2, 3], presence probability [n]) of these frames, which are rows `rows` of the places."""
    import torch

    if places is not None:
        return torch.from_numpy(places.theta[rows]).to(device), torch.from_numpy(places.presence[rows]).to(device)
    theta, presence = stn.locate(frames, torch.tensor([region], device=device).expand(len(frames), 4))
    return theta, presence.sigmoid()


@lru_cache(maxsize=2)
def _boxes(path: Path, _changed: int) -> Boxes:
    """Read once for all batches of a video: Aff-Wild has a file per frame."""
    return read_boxes(path)


@lru_cache(maxsize=2)
def _crops(subject: Subject) -> dict[int, Path]:
    return crop_files(subject)


def _fixed(region: Region, n: int, margin: float) -> Places:
    """The region for all frames, less the margin that sampling adds."""
    x0, y0, x1, y1 = region
    theta = np.array(
        [[(x1 - x0) / (1 + margin), 0, x0 + x1 - 1], [0, (y1 - y0) / (1 + margin), y0 + y1 - 1]], np.float32
    )
    return Places(np.tile(theta, (n, 1, 1)), np.ones(n, np.float32))


def _boxed(boxes: Boxes, index: NDArray[np.int64], width: int, height: int) -> Places:
    """The box of each frame, or of the nearest frame that has one; presence says which."""
    if not len(boxes):
        places = _fixed((0.0, 0.0, 1.0, 1.0), len(index), 0.0)
        return Places(places.theta, np.zeros(len(index), np.float32))
    corners = boxes.corners[nearest(boxes.frame, index)]
    x0, y0, x1, y1 = (corners / np.array([width, height, width, height], np.float32)).T
    theta = np.zeros((len(index), 2, 3), np.float32)
    theta[:, 0, 0], theta[:, 0, 2] = x1 - x0, x0 + x1 - 1
    theta[:, 1, 1], theta[:, 1, 2] = y1 - y0, y0 + y1 - 1
    return Places(theta, np.isin(index, boxes.frame).astype(np.float32))
