"""Detects faces with a trained STN, for data that has no face boxes yet."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import WeightsError
from ..ingest.detector import Detector, Faces
from ..records import BASE_MODEL
from .encode import THREADS
from .encoder import load_part
from .stn_init import SHIPPED

if TYPE_CHECKING:
    from ...models.stn import SpatialTransformer
    from ..learning.runtime import Compute

SIZE = 448
"""Side of the square frames that the STN gets. On nine real videos of up to 1280 x 720 pixels, frames of full size gave
no better boxes."""
CANDIDATES = 4
"""Faces per frame at most: two people, and two candidates that may not be faces."""
BATCH = 16


def default_weights() -> Path:
    """The STN that detects faces if the user names no other: of the base model, or the shipped STN without it."""
    return BASE_MODEL if BASE_MODEL.is_file() else SHIPPED


def open_stn(weights: Path, threshold: float, compute: "Compute") -> Detector:
    """The detector of an STN. weights: of an STN or a whole model. threshold: minimum face probability.

    Its result does not depend on the number of cores. Raises WeightsError.
    """
    import torch

    from ...models.multi_face import detect_faces
    from ...models.theta import corners_from_theta

    stn = _load(weights).to(compute.device).eval()

    def find(pixels: NDArray[np.uint8], width: int, height: int) -> list[Faces]:
        before = torch.get_num_threads()
        torch.set_num_threads(THREADS)
        try:
            frames = torch.from_numpy(np.ascontiguousarray(pixels)).to(compute.device).permute(0, 3, 1, 2)
            with torch.inference_mode(), compute.autocast():
                theta, presence = detect_faces(stn, frames, CANDIDATES)
            corners = corners_from_theta(theta.flatten(0, 1).float(), width, height).view(-1, CANDIDATES, 4)
            limits = torch.tensor([width, height, width, height], device=compute.device)
            boxes = torch.minimum(corners.clamp(min=0), limits).cpu().numpy()
            scores = presence.float().cpu().numpy()
        finally:
            torch.set_num_threads(before)
        seen = (scores >= threshold) & (scores > 0)  # 0: a box that overlaps a more probable one
        return [(box[rows], score[rows]) for box, score, rows in zip(boxes, scores, seen, strict=True)]

    return Detector(SIZE, BATCH, find)


def _load(weights: Path) -> "SpatialTransformer":
    from ...models.stn import SpatialTransformer

    state, metadata = load_part(weights, "stn")
    try:
        stn = SpatialTransformer(**metadata["stn"])
        stn.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"{weights}: contains no usable STN ({reason})", "Give weights that affect wrote."
        ) from error
    return stn
