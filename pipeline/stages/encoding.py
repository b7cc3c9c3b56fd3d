"""One subject's frames through the networks, into its feature shard: read ahead, computed piece by piece, written."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...configs.schema import Config
from ..cluster import worker_count, worker_number
from ..errors import AffectError, DeviceError, WeightsError, WorkError
from ..ingest.align import align
from ..ingest.annotations import read_labels
from ..records import Aligned, Problem, Subject
from ..storage.fingerprint import fingerprint
from ..storage.shard import FEATURES, FrameShard, ShardWriter
from ..storage.versions import versions
from .encoder import EncoderPlan, build_encoder
from .looking import Places, annotation_digest, find, known_places, labels_of, read_crops

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ...models.backbone import Backbone
    from ...models.stn import SpatialTransformer

THREADS = 2
"""Of torch, for each piece of frames. Always as many, however many workers and cores there are: sums are split among
the threads, so another number of them gives other last bits."""
MOST_LOADERS = 8
"""Threads that decode JPEGs for one GPU."""
JITTER, SHIFT = 0.10, 0.06
"""How far the box of an extra view may differ: in log scale, and in shares of its half side."""

Batch = tuple[NDArray[np.int64], NDArray[np.float64], "Tensor"]
"""Of n frames: their numbers, their times, and their pictures, uint8 [n, 3, size, size]."""

Piece = tuple[Batch, Places | None, slice]
"""What the networks are given at once: a part of a batch, where to look in all of that batch, and which part it is."""


@dataclass(frozen=True)
class Caching:
    """One subject's features to be computed. frames: its frame shard, or None: then from the video. lanes: how many
    pieces of frames are computed at once, each by THREADS of torch."""

    subject: Subject
    video: Path
    frames: Path | None
    out: Path
    fingerprint: str
    config: Config
    plan: EncoderPlan
    lanes: int = 1


@dataclass(frozen=True)
class Encoder:
    """The networks of one worker."""

    stn: "SpatialTransformer"
    backbone: "Backbone"
    device: "torch.device"
    dtype: "torch.dtype"


def cache_subject(item: Caching) -> int | Problem:
    """Computes and writes one subject's features; returns how many frames, or why there are none. Raises DeviceError,
    WeightsError and WorkError, which no other subject would escape."""
    import torch

    from ..ingest.video import Decoding, decoded

    def from_video(decoding: Decoding) -> int:
        def batches() -> Iterator[Batch]:
            for batch in decoding:
                yield batch.index, batch.time, torch.from_numpy(batch.pixels).permute(0, 3, 1, 2)

        def labels() -> Aligned:
            lost = frozenset(decoding.lost)
            total = decoding.facts.frames
            return align(read_labels(item.subject.annotation), max(total, len(lost)), lost=lost)

        return _write(item, decoding.facts.width, decoding.facts.height, batches(), labels)

    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        if item.frames is None:
            options: dict[str, Any] = {
                "batch": item.config.features.batch,
                "deadline": item.config.runtime.decode_seconds,
            }
            return decoded(item.video, item.config.frames.size, from_video, **options)
        with FrameShard(item.frames) as shard:
            width, height = shard.attributes["width"], shard.attributes["height"]
            return _write(item, width, height, _shard_batches(item, shard), lambda: labels_of(item.subject, shard))
    except (DeviceError, WeightsError, WorkError):
        raise  # of the whole stage, not of this subject
    except AffectError as error:
        return Problem("damaged", item.subject.name, error.problem, error.remedy)
    finally:
        torch.set_num_threads(before)


def _shard_batches(item: Caching, shard: FrameShard) -> Iterator[Batch]:
    """Read ahead by a thread; for a GPU by several, into memory from which it fetches by itself."""
    from ..learning.ahead import ahead
    from ..learning.runtime import gpu_count

    on_gpu = _encoder(item.plan, item.config.model_dump_json()).device.type == "cuda"
    threads = min(MOST_LOADERS, worker_count(-1, gpu_count(item.config.runtime.device))) if on_gpu else 1

    def load(rows: NDArray[np.int64]) -> "Tensor":
        frames = shard.frames(rows)
        return frames.pin_memory() if on_gpu else frames

    index, pts, batch = shard.read("index"), shard.read("pts"), item.config.features.batch
    parts = np.array_split(np.arange(len(index)), range(batch, len(index), batch))
    for rows, frames in zip(parts, ahead(parts, load, threads=threads, depth=threads + 1), strict=True):
        yield index[rows], pts[rows], frames


def _write(item: Caching, width: int, height: int, batches: Iterable[Batch], labels: Callable[[], Aligned]) -> int:
    """Encodes piece by piece into the shard; labels() is asked at the end, when the lost frames are known."""
    from ..learning.runtime import device_name

    encoder = _encoder(item.plan, item.config.model_dump_json())
    numbers: list[NDArray[np.int64]] = []
    settings = {"stn": item.config.stn.model_dump(mode="json"), "views": item.config.features.views}
    with ShardWriter(item.out, FEATURES, item.fingerprint, settings, item.subject.name) as writer:
        with closing(_encoded(encoder, item, _pieces(item, encoder, width, height, batches))) as made:
            for arrays in made:
                writer.append(**arrays)
                numbers.append(arrays["index"])
        aligned = labels()
        index = np.concatenate(numbers) if numbers else np.zeros(0, np.int64)
        if not np.array_equal(aligned.index, index):
            raise AffectError(
                f"{item.video.name} gave {len(index)} frames, its labels are for {len(aligned)}",
                "Run `affect extract-frames` first, which salvages damaged videos.",
            )
        writer.append(target=aligned.target, valid=aligned.valid)
        writer.attributes |= {
            "width": width,
            "height": height,
            "split": item.subject.split,
            "video": item.subject.video,
            "encoder": item.plan.digest,
            "source": "frames" if item.frames else "video",
            "precision": str(encoder.dtype).removeprefix("torch."),
            "device": device_name(encoder.device),
            "environment": versions("torch", "torchvision", "numpy", "opencv-python-headless"),
            "labels": annotation_digest(item.subject),
        }
    return len(index)


def _pieces(item: Caching, encoder: Encoder, width: int, height: int, batches: Iterable[Batch]) -> Iterator[Piece]:
    from ..learning.runtime import pieces

    for index, pts, frames in batches:
        places = known_places(item.config, item.subject, index, width, height)
        if places is not None and places.crops is not None:
            frames = read_crops(places.crops, item.config.frames.size)
        for rows in pieces(len(frames), encoder.device):
            yield (index[rows], pts[rows], frames[rows]), places, rows


def _encoded(encoder: Encoder, item: Caching, parts: Iterable[Piece]) -> Generator[dict[str, NDArray[Any]], None, None]:
    """The rows of each piece, in order. A single lane has no thread of its own: it would only slow down this one. A GPU
    has two, so that it goes on while what it made is fetched."""
    from ..learning.ahead import ahead

    encode = partial(_encode, encoder, item)
    lanes = 2 if encoder.device.type == "cuda" else item.lanes
    if lanes == 1:
        yield from map(encode, parts)
    else:
        yield from ahead(parts, encode, threads=lanes, depth=lanes, cores=THREADS)


def _encode(encoder: Encoder, item: Caching, piece: Piece) -> dict[str, NDArray[Any]]:
    """The rows of a piece: index, pts, feature, theta, presence, and feature_1... of the extra views."""
    import torch

    from ...models.pyramid import Pyramid
    from ..learning.runtime import autocast

    (index, pts, frames), places, rows = piece
    with torch.inference_mode(), autocast(encoder.device, encoder.dtype):
        pyramid = Pyramid(frames.to(encoder.device, non_blocking=True))
        theta, presence = find(encoder.stn, pyramid, item.subject.region, places, rows, encoder.device)
        made = {"theta": theta.float(), "presence": presence.float()}
        for view in range(item.config.features.views):
            seen = theta if view == 0 else theta_of_view(theta, item.subject.name, view, item.config.runtime.seed)
            feature = encoder.backbone.features(encoder.stn.sample(pyramid, seen))
            made[f"feature_{view}" if view else "feature"] = feature.to(torch.float16)
        return {"index": index, "pts": pts, **{name: value.cpu().numpy() for name, value in made.items()}}


def theta_of_view(theta: "Tensor", subject: str, view: int, seed: int) -> "Tensor":
    """The boxes of an extra view: scaled and shifted a little, the same for all frames of the subject, and mirrored in
    odd views."""
    rng = np.random.default_rng(int(fingerprint(subject=subject, view=view, seed=seed)[:12], 16))
    scale = np.exp(rng.uniform(-JITTER, JITTER, 2))
    shift = rng.uniform(-SHIFT, SHIFT, 2)
    mirror = -1.0 if view % 2 else 1.0
    changed = theta.clone()
    changed[:, :, 2] += theta[:, :, :2] @ theta.new_tensor(shift)
    changed[:, :, 0] *= mirror * scale[0]
    changed[:, :, 1] *= scale[1]
    return changed


@lru_cache(maxsize=1)
def _encoder(plan: EncoderPlan, settings: str) -> Encoder:
    """The networks, loaded once in each process."""
    from ...models.backbone import folded
    from ..learning.runtime import keep_freed_memory, pick_device, pick_dtype

    config = Config.model_validate_json(settings)
    device = pick_device(config.runtime.device, worker_number())
    keep_freed_memory(device)
    stn, backbone = build_encoder(config, plan)
    return Encoder(stn.to(device), folded(backbone).to(device), device, pick_dtype(config.runtime.precision, device))
