"""Features of a subject with `features.fps`: the networks see some frames, and the other features are interpolated."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...configs.schema import Config
from ..ingest.video.frame_sampling import FrameChunk, frame_chunks
from ..learning.time_sampling import Outputs, SparseEncoder
from ..records import Subject
from .crops import CropBoxes, configured_boxes, read_crops

if TYPE_CHECKING:
    import torch
    from torch import Tensor


Batch = tuple[NDArray[np.int64], NDArray[np.float64], "Tensor"]
"""(frame numbers [n], times [n], frames uint8 [n, 3, size, size])."""

Chunk = tuple[Batch, CropBoxes | None, slice | NDArray[np.int64]]
"""The input of one pass through the networks: a part of a batch, the known crops of the batch, the rows of the part."""
Arrays = dict[str, NDArray[Any]]
"""The arrays to store for some frames, by dataset."""
SampledChunk = tuple[FrameChunk, int]
"""A chunk, and how many of its first frames are the last ones of the chunk before."""


def sampled_chunks(batches: Iterable[Batch], fps: float | None) -> Iterator[SampledChunk]:
    """The frames in chunks that can be encoded in any order: each starts with the last frame of the chunk before."""
    last: FrameChunk | None = None
    frames = ((index, pts, pictures.permute(0, 2, 3, 1).numpy()) for index, pts, pictures in batches)
    for chunk in frame_chunks(frames, fps):
        yield (chunk, 0) if last is None else (last.before(chunk), 1)
        last = chunk.part(len(chunk) - 1)


def encode_sampled(
    encode: Callable[[Chunk], Arrays],
    config: Config,
    subject: Subject,
    size: tuple[int, int],
    device: "torch.device",
    part: SampledChunk,
) -> Arrays:
    """The arrays to store for a chunk: those that `encode` returns for all its frames, and `sampled`, bool [n].

    encode: runs the networks on frames. size: width and height of the video.
    """
    import torch

    from ..learning.runtime import pieces

    chunk, first = part
    known = configured_boxes(config, subject, chunk.index, *size)

    def pictures(rows: NDArray[np.int64]) -> "Tensor":
        if known is not None and known.crops is not None:
            return read_crops([known.crops[row] for row in rows.tolist()], config.frames.size)
        return torch.from_numpy(np.ascontiguousarray(chunk.pixels(rows))).permute(0, 3, 1, 2)

    def outputs(rows: NDArray[np.int64]) -> Outputs:
        parts = [
            encode(((chunk.index[some], chunk.time[some], pictures(some)), known, some))
            for some in (rows[piece] for piece in pieces(len(rows), device))
        ]
        arrays = {name: np.concatenate([it[name] for it in parts]) for name in parts[0]}
        face = arrays.pop("presence")
        return {"face": face, **{name: value for name, value in arrays.items() if name not in ("index", "pts")}}

    found, sampled = SparseEncoder().push(chunk.time, chunk.due, outputs)
    arrays = {"index": chunk.index, "pts": chunk.time, "sampled": sampled, "presence": found["face"]}
    arrays |= {name: value for name, value in found.items() if name != "face"}
    if known is not None:  # they are known for every frame
        arrays |= {"theta": known.theta, "presence": known.presence}
    return {name: value[first:] for name, value in arrays.items()}
