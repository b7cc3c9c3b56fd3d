"""The crop of each frame: from the STN, box files, provided crops, or the whole picture, as stn.localiser says.

All stages use these functions, so that features are cached with the crops that the backbone was adapted on.
"""

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
from ..ingest.annotations import annotation_files, read_labels
from ..ingest.boxes import read_boxes
from ..records import Aligned, Boxes, Region, Subject, Video, Work
from ..storage.fingerprint import content_digest, fingerprint, folder_digest
from ..storage.shard import FRAMES, VERSION, FrameShard
from .video_digest import video_digest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ...models.pyramid import Pyramid
    from ...models.stn import SpatialTransformer


CROP_BYTES = 1 << 24
"""Maximum file size of a provided crop. Those of Aff-Wild2 have a few thousand bytes."""


@dataclass(frozen=True)
class CropBoxes:
    """Crops that are known without the STN.

    theta: float32 [n, 2, 3]. presence: float32 [n], 1 if the frame is known to show the face. crops: the provided
    pictures to use instead of the frames; a frame without one has the picture of the nearest frame.
    """

    theta: NDArray[np.float32]
    presence: NDArray[np.float32]
    crops: tuple[Path, ...] | None = None


def configured_boxes(
    config: Config, subject: Subject, index: NDArray[np.int64], width: int, height: int
) -> CropBoxes | None:
    """The crops of frames `index` of a width x height video, as stn.localiser says; None means the STN finds them.

    Raises BoxError or InputError if the subject lacks the files that stn.localiser needs.
    """
    match config.stn.localiser:
        case "stn":
            return None
        case "none":
            return _fixed(subject.region, len(index), config.stn.margin)
        case "aligned":
            whole = _fixed((0.0, 0.0, 1.0, 1.0), len(index), config.stn.margin)
            files = _crops(subject)
            known = np.array(list(files), np.int64)
            paths = [files[number] for number in known[nearest(known, index)].tolist()]
            return CropBoxes(whole.theta, np.isin(index, known).astype(np.float32), tuple(paths))
        case "box":
            if subject.boxes is None:
                raise BoxError(
                    f"{subject.name} has no boxes", "Run `affect detect-boxes`, or set stn.localiser to stn."
                )
            return _from_boxes(_read_boxes(subject.boxes, subject.boxes.stat().st_mtime_ns), index, width, height)


def fresh_frames(config: Config, video: Video, work: Work) -> Path | None:
    """The up-to-date frame shard of a video, or None. Raises ShardError if the shard is damaged."""
    path = work.frames(video.name)
    if not path.is_file():
        return None
    with FrameShard(path) as shard:
        return path if shard.fingerprint == frames_fingerprint(config, video.path) else None


def labels_of(subject: Subject, shard: FrameShard) -> Aligned:
    """The subject's labels, one per row of the video's shard. Raises AnnotationError, AlignmentError, ShardError."""
    index, lost = shard.read("index"), frozenset(shard.attributes["lost"])
    aligned = align(read_labels(subject.annotation), len(index) + len(lost), lost=lost)
    if not np.array_equal(aligned.index, index):
        shard.mark_corrupt()
        raise ShardError(
            f"{shard.path}: frame numbers are missing and are not listed in `lost`",
            "Run `affect extract-frames` again.",
        )
    return aligned


def annotation_digest(subject: Subject) -> list[str]:
    """The digest of each file with labels of the subject."""
    return [content_digest(path) for path in annotation_files(subject.annotation)]


def crop_source_digest(config: Config, subject: Subject) -> str | None:
    """The digest of the box files or provided crops that stn.localiser uses; None if it uses neither."""
    if config.stn.localiser == "box":
        return boxes_digest(subject)
    if config.stn.localiser == "aligned" and subject.crops is not None:
        return folder_digest(subject.crops)
    return None


def boxes_digest(subject: Subject) -> str | None:
    """The digest of the subject's box file or folder of box files; None if it has neither. Raises InputError."""
    if subject.boxes is None:
        return None
    return content_digest(subject.boxes) if subject.boxes.is_file() else folder_digest(subject.boxes)


def crop_files(subject: Subject) -> dict[int, Path]:
    """The provided crops by frame number, ascending. File names (00001.jpg) count from 1, frames from 0.

    Raises InputError.
    """
    if subject.crops is None or not subject.crops.is_dir():
        raise InputError(
            f"{subject.name} has no provided crops", "Restore cropped_aligned, or set stn.localiser to stn."
        )
    found = {int(path.stem) - 1: path for path in subject.crops.glob("*.jpg") if path.stem.isdigit()}
    if not found:
        raise InputError(f"{subject.crops}: contains no crop", "Restore cropped_aligned, or set stn.localiser to stn.")
    return dict(sorted(found.items()))


def read_crops(files: Sequence[Path], size: int) -> "Tensor":
    """Reads pictures and resizes them: uint8 [n, 3, size, size], RGB. Raises InputError."""
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


def nearest(known: NDArray[np.int64], frames: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each frame number, the index of the nearest known number; the smaller one if two are equally near.

    known: in ascending order.
    """
    after = np.searchsorted(known, frames).clip(0, len(known) - 1)
    before = (after - 1).clip(0)
    return np.where(np.abs(known[before] - frames) <= np.abs(known[after] - frames), before, after)


def locate_crops(
    stn: "SpatialTransformer",
    frames: "Tensor | Pyramid",
    region: Region,
    known: CropBoxes | None,
    rows: "slice | NDArray[np.int64]",
    device: "torch.device",
) -> tuple["Tensor", "Tensor"]:
    """(theta [n, 2, 3], presence probability [n]) of these frames: rows `rows` of `known`, or else from the STN."""
    import torch

    if known is not None:
        return torch.from_numpy(known.theta[rows]).to(device), torch.from_numpy(known.presence[rows]).to(device)
    theta, presence = stn.locate(frames, torch.tensor([region], device=device).expand(len(frames), 4))
    return theta, presence.sigmoid()


@lru_cache(maxsize=2)
def _read_boxes(path: Path, _mtime: int) -> Boxes:
    """Cached, because all batches of a video need it, and Aff-Wild has one file per frame."""
    return read_boxes(path)


@lru_cache(maxsize=2)
def _crops(subject: Subject) -> dict[int, Path]:
    return crop_files(subject)


def _fixed(region: Region, n: int, margin: float) -> CropBoxes:
    """The theta whose crop, margin included, is the region, for all frames."""
    import torch

    from ...models.theta import remove_margin, theta_from_corners

    theta = remove_margin(theta_from_corners(torch.tensor([region]), 1.0, 1.0), margin)
    return CropBoxes(theta.expand(n, 2, 3).numpy().copy(), np.ones(n, np.float32))


def _from_boxes(boxes: Boxes, index: NDArray[np.int64], width: int, height: int) -> CropBoxes:
    """The box of each frame, or of the nearest frame with a box. presence: 1 if the frame has a box itself."""
    if not len(boxes):
        whole = _fixed((0.0, 0.0, 1.0, 1.0), len(index), 0.0)
        return CropBoxes(whole.theta, np.zeros(len(index), np.float32))
    corners = boxes.corners[nearest(boxes.frame, index)]
    x0, y0, x1, y1 = (corners / np.array([width, height, width, height], np.float32)).T
    theta = np.zeros((len(index), 2, 3), np.float32)
    theta[:, 0, 0], theta[:, 0, 2] = x1 - x0, x0 + x1 - 1
    theta[:, 1, 1], theta[:, 1, 2] = y1 - y0, y0 + y1 - 1
    return CropBoxes(theta, np.isin(index, boxes.frame).astype(np.float32))


def frames_fingerprint(config: Config, video: Path) -> str:
    """The fingerprint of an up-to-date frame shard of this video. Raises InputError."""
    settings = config.frames.model_dump(mode="json")
    return fingerprint(format=FRAMES, version=VERSION, source=video_digest(video), settings=settings)
