"""Encodes the frames of one person: all of them, or with `predict.fps` some per second, and interpolates the rest."""

import numpy as np
import torch
from numpy.typing import NDArray

from ..ingest.video.frame_sampling import FrameChunk
from ..learning.time_sampling import Outputs, SparseEncoder
from ..records import VideoFacts
from .predictor import FrameOutputs, Predictor


class SampledEncoder:
    """Like Predictor.encode_pixels, for the chunks of one video in order. With predict.fps, it runs on some frames."""

    def __init__(self, predictor: Predictor, facts: VideoFacts) -> None:
        self._predictor, self._size = predictor, (facts.width, facts.height)
        settings = predictor.config.predict
        self._sparse = SparseEncoder(settings.face_threshold) if settings.fps is not None else None

    def push(
        self, chunk: FrameChunk, region: NDArray[np.float32] | None
    ) -> tuple[FrameOutputs, NDArray[np.bool_] | None]:
        """The outputs of all frames of the chunk, and which of them the networks have seen, bool [n]; None: all.

        region: where to search for the face, as in encode_pixels.
        """
        if self._sparse is None:
            return self._encode(chunk, np.arange(len(chunk)), region), None

        def encode(rows: NDArray[np.int64]) -> Outputs:
            outputs = self._encode(chunk, rows, region)
            return {**outputs._asdict(), "feature": outputs.feature.cpu().numpy()}

        found, sampled = self._sparse.push(chunk.time, chunk.due, encode)
        feature = torch.from_numpy(found["feature"]).to(self._predictor.device)
        return FrameOutputs(**{**found, "feature": feature}), sampled

    def _encode(self, chunk: FrameChunk, rows: NDArray[np.int64], region: NDArray[np.float32] | None) -> FrameOutputs:
        part = None if region is None else region[rows]
        return self._predictor.encode_pixels(chunk.pixels(rows), *self._size, part)
