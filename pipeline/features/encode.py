"""Computes the features of one subject: prefetches its frames, runs the networks on chunks, writes the shard."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...configs.schema import Config
from ..cluster import worker_count, worker_number
from ..errors import AffectError
from ..faults import one_input
from ..ingest.align import align
from ..ingest.annotations import read_labels
from ..records import Aligned, Problem, Subject
from ..storage.fingerprint import fingerprint
from ..storage.shard import FEATURES, FrameShard
from ..storage.shard_writer import ShardWriter
from ..storage.versions import versions
from .crops import annotation_digest, configured_boxes, labels_of, locate_crops, read_crops
from .encoder import EncoderPlan, build_encoder
from .sampled_features import Arrays, Batch, Chunk, encode_sampled, sampled_chunks

if TYPE_CHECKING:
    from torch import Tensor

    from ...models.backbone import Backbone
    from ...models.stn import SpatialTransformer
    from ..learning.runtime import Compute

THREADS = 2
"""Threads of torch per chunk. Fixed, whatever the number of workers and cores: torch splits sums among its threads, so
another number of threads changes the last bits of the features."""
MAX_LOADERS = 8
"""Threads that decode JPEGs for one GPU."""
MAX_LOG_SCALE, MAX_SHIFT = 0.10, 0.06
"""Maximum change of the box of an extra view: of the log scale, and of the centre, relative to half the side."""

Input = TypeVar("Input")


@dataclass(frozen=True)
class FeatureJob:
    """The task of computing the features of one subject.

    frames: the frame shard; None means decode the video. parallel_chunks: chunks computed at the same time, each with
    THREADS threads of torch.
    """

    subject: Subject
    video: Path
    frames: Path | None
    out: Path
    fingerprint: str
    config: Config
    plan: EncoderPlan
    parallel_chunks: int = 1


@dataclass(frozen=True)
class Encoder:
    """The networks of one worker."""

    stn: "SpatialTransformer"
    backbone: "Backbone"
    compute: "Compute"


def cache_subject(item: FeatureJob) -> int | Problem:
    """Computes and writes the features of one subject. Returns the number of frames, or the problem of the subject.

    Raises DeviceError, WeightsError and WorkError, which would affect every other subject too.
    """
    import torch

    from ..ingest.video.decode import Decoding, decoded

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
    failed: list[Problem] = []
    try:
        _encoder(item.plan, item.config.model_dump_json())  # not in one_input: not a fault of the subject
        with one_input(item.subject.name, failed):
            if item.frames is None:
                options: dict[str, Any] = {
                    "batch": item.config.features.batch,
                    "deadline": item.config.runtime.decode_seconds,
                }
                return decoded(item.video, item.config.frames.size, from_video, **options)
            with FrameShard(item.frames) as shard:
                width, height = shard.attributes["width"], shard.attributes["height"]
                return _write(item, width, height, _shard_batches(item, shard), lambda: labels_of(item.subject, shard))
        return failed[0]
    finally:
        torch.set_num_threads(before)


def _shard_batches(item: FeatureJob, shard: FrameShard) -> Iterator[Batch]:
    """Prefetches frames of a shard in one thread; for a GPU in several threads, into pinned memory."""
    from ..learning.prefetch import prefetch
    from ..learning.runtime import gpu_count

    on_gpu = _encoder(item.plan, item.config.model_dump_json()).compute.device.type == "cuda"
    threads = min(MAX_LOADERS, worker_count(-1, gpu_count(item.config.runtime.device))) if on_gpu else 1

    def load(rows: NDArray[np.int64]) -> "Tensor":
        frames = shard.frames(rows)
        return frames.pin_memory() if on_gpu else frames

    index, pts, batch = shard.read("index"), shard.read("pts"), item.config.features.batch
    parts = np.array_split(np.arange(len(index)), range(batch, len(index), batch))
    for rows, frames in zip(parts, prefetch(parts, load, threads=threads, depth=threads + 1), strict=True):
        yield index[rows], pts[rows], frames


def _write(item: FeatureJob, width: int, height: int, batches: Iterable[Batch], labels: Callable[[], Aligned]) -> int:
    """Encodes the batches into the shard. Calls labels() at the end, because only then the lost frames are known."""
    from ..learning.runtime import device_name

    encoder = _encoder(item.plan, item.config.model_dump_json())
    numbers: list[NDArray[np.int64]] = []
    settings = {"stn": item.config.stn.model_dump(mode="json"), "views": item.config.features.views}
    with ShardWriter(item.out, FEATURES, item.fingerprint, settings, item.subject.name) as writer:
        with closing(_encode_all(encoder, item, (width, height), batches)) as results:
            for arrays in results:
                writer.append(**arrays)
                numbers.append(arrays["index"])
        aligned = labels()
        index = np.concatenate(numbers) if numbers else np.zeros(0, np.int64)
        if not np.array_equal(aligned.index, index):
            raise AffectError(
                f"{item.video.name} has {len(index)} frames that can be decoded, but labels for {len(aligned)}",
                "Run `affect extract-frames` first: it recovers damaged videos.",
            )
        writer.append(target=aligned.target, valid=aligned.valid)
        writer.attributes |= {
            "width": width,
            "height": height,
            "split": item.subject.split,
            "video": item.subject.video,
            "encoder": item.plan.digest,
            "source": "frames" if item.frames else "video",
            "precision": str(encoder.compute.dtype).removeprefix("torch."),
            "device": device_name(encoder.compute.device),
            "environment": versions("torch", "torchvision", "numpy", "opencv-python-headless"),
            "labels": annotation_digest(item.subject),
        }
    return len(index)


def _chunks(item: FeatureJob, encoder: Encoder, size: tuple[int, int], batches: Iterable[Batch]) -> Iterator[Chunk]:
    from ..learning.runtime import pieces

    for index, pts, frames in batches:
        known = configured_boxes(item.config, item.subject, index, *size)
        if known is not None and known.crops is not None:
            frames = read_crops(known.crops, item.config.frames.size)
        for rows in pieces(len(frames), encoder.compute.device):
            yield (index[rows], pts[rows], frames[rows]), known, rows


def _encode_all(
    encoder: Encoder, item: FeatureJob, size: tuple[int, int], batches: Iterable[Batch]
) -> Generator[Arrays, None, None]:
    """The arrays of all frames, in order. size: width and height of the video."""
    device, fps = encoder.compute.device, item.config.features.fps
    parallel_chunks = 2 if device.type == "cuda" else item.parallel_chunks
    encode = partial(_encode, encoder, item)
    if fps is None:
        return _in_order(encode, _chunks(item, encoder, size, batches), parallel_chunks)
    sampled = partial(encode_sampled, encode, item.config, item.subject, size, device)
    return _in_order(sampled, sampled_chunks(batches, fps), parallel_chunks)


def _in_order(
    encode: Callable[[Input], Arrays], chunks: Iterable[Input], parallel_chunks: int
) -> Generator[Arrays, None, None]:
    """The results of `encode`, in order.

    With one chunk at a time, it runs in this thread, because another one would only slow this one down. With a GPU,
    there are two, so that the GPU computes while the results of the previous chunk are copied.
    """
    from ..learning.prefetch import prefetch

    if parallel_chunks == 1:
        yield from map(encode, chunks)
    else:
        yield from prefetch(chunks, encode, threads=parallel_chunks, depth=parallel_chunks, cores=THREADS)


def _encode(encoder: Encoder, item: FeatureJob, chunk: Chunk) -> Arrays:
    """The arrays to store for a chunk: index, pts, feature, theta, presence, and feature_1, … of the extra views."""
    import torch

    from ...models.pyramid import Pyramid

    (index, pts, frames), known, rows = chunk
    with torch.inference_mode(), encoder.compute.autocast():
        pyramid = Pyramid(frames.to(encoder.compute.device, non_blocking=True))
        theta, presence = locate_crops(encoder.stn, pyramid, item.subject.region, known, rows, encoder.compute.device)
        arrays = {"theta": theta.float(), "presence": presence.float()}
        for view in range(item.config.features.views):
            view_theta = theta if view == 0 else theta_of_view(theta, item.subject.name, view, item.config.runtime.seed)
            feature = encoder.backbone.features(encoder.stn.sample(pyramid, view_theta))
            arrays[f"feature_{view}" if view else "feature"] = feature.to(torch.float16)
        return {"index": index, "pts": pts, **{name: value.cpu().numpy() for name, value in arrays.items()}}


def theta_of_view(theta: "Tensor", subject: str, view: int, seed: int) -> "Tensor":
    """The theta of an extra view: slightly scaled and shifted, by the same amount for all frames of the subject.

    Odd views are mirrored.
    """
    rng = np.random.default_rng(int(fingerprint(subject=subject, view=view, seed=seed)[:12], 16))
    scale = np.exp(rng.uniform(-MAX_LOG_SCALE, MAX_LOG_SCALE, 2))
    shift = rng.uniform(-MAX_SHIFT, MAX_SHIFT, 2)
    mirror = -1.0 if view % 2 else 1.0
    changed = theta.clone()
    changed[:, :, 2] += theta[:, :, :2] @ theta.new_tensor(shift)
    changed[:, :, 0] *= mirror * scale[0]
    changed[:, :, 1] *= scale[1]
    return changed


@lru_cache(maxsize=1)
def _encoder(plan: EncoderPlan, settings: str) -> Encoder:
    """The networks, loaded once per process."""
    from ...models.backbone import folded
    from ..learning.runtime import keep_freed_memory, limit_spinning_late, pick_compute

    config = Config.model_validate_json(settings)
    compute = pick_compute(config.runtime, worker_number())
    keep_freed_memory(compute.device)
    limit_spinning_late(compute.device)
    stn, backbone = build_encoder(config, plan)
    return Encoder(stn.to(compute.device), folded(backbone).to(compute.device), compute)
