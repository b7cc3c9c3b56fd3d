"""What to tell the user about a video whose faces are unlike those of the training split. Imports no torch."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..learning.reference import Reference, Unlike

STREAM_FRAMES = 50
"""Frames with a face after which a stream is judged."""


def unlike_text(facts: Mapping[str, Any]) -> str:
    """The warning for the facts of a video, of a person or of pictures; empty if they are not beyond the training
    data, or if the model has no reference."""
    return _text(facts["training_percentile"]) if facts.get("beyond_training") else ""


def judge_people(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """For each person of a video that is beyond the training data, the person (empty for only one) and the warning."""
    people = facts.get("people")
    if not people:
        return [("", text)] if (text := unlike_text(facts)) else []
    return [(f", person {number}", text) for number, own in enumerate(people) if (text := unlike_text(own))]


class StreamJudge:
    """Judges a stream once, after STREAM_FRAMES frames with a face."""

    def __init__(self, reference: Reference | None) -> None:
        self._reference = reference
        self._distances: list[float] = []

    def push(self, distance: float, *, seen: bool) -> str:
        """The warning, at most once; else empty. distance: of the next frame."""
        if self._reference is None or not seen or math.isnan(distance):
            return ""
        self._distances.append(distance)
        if len(self._distances) < STREAM_FRAMES:
            return ""
        found = judge(self._reference, np.array(self._distances), np.ones(STREAM_FRAMES, bool))
        self._reference = None
        return _text(found.percentile) if found is not None and found.beyond else ""


def judge(reference: Reference | None, distance: NDArray[np.floating[Any]], seen: NDArray[np.bool_]) -> Unlike | None:
    """None without a reference or without a face. distance: [n]. seen: bool [n]."""
    return None if reference is None else reference.judge(distance, seen)


def _text(percentile: float) -> str:
    return (
        f"the faces are unlike the training data (farther from it than {math.floor(percentile * 10) / 10:g} % of new "
        "people), so the values may be wrong"
    )
