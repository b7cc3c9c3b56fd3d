"""Which subjects a model learns from and which it is judged by, and what is cached of them. Needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import MissingStageError
from ..records import Work
from ..storage.shard import FEATURES, Shard


@dataclass(frozen=True)
class Cached:
    """A feature shard, by its attributes. encoder: the digest of what computed it."""

    subject: str
    path: Path
    split: str
    video: str
    fingerprint: str
    encoder: str


def cached_subjects(work: Work) -> dict[str, Cached]:
    """The feature shards of a work folder by subject, in the order of the names. Raises ShardError."""
    found: dict[str, Cached] = {}
    for path in sorted((work.root / "features").glob("*.h5")):
        with Shard(path, FEATURES) as shard:
            own = shard.attributes
            found[path.stem] = Cached(
                path.stem, path, own["split"], own.get("video", path.stem), shard.fingerprint, own["encoder"]
            )
    return found


def divide(splits: Mapping[str, str]) -> tuple[list[str], list[str], str]:
    """(subjects to train on, subjects to validate on, what is worth saying), from the split of each subject.

    Without a subject of the validation split the last fifth of the training subjects, by name, takes its place.
    Raises MissingStageError where there are too few subjects for either.
    """
    training = sorted(name for name, split in splits.items() if split == "train")
    validation = sorted(name for name, split in splits.items() if split == "validation")
    note = ""
    if not validation and len(training) > 1:
        kept = max(1, len(training) // 5)
        training, validation = training[:-kept], training[-kept:]
        note = f"no validation subjects: {', '.join(validation)} of the training split validate instead"
    if not training or not validation:
        raise MissingStageError(
            f"{len(training)} training and {len(validation)} validation subjects are ready, one of each is the least",
            "Give more data, or run the earlier stages again.",
        )
    return training, validation, note


def evaluated(splits: Mapping[str, str], split: str, run: Mapping[str, Any]) -> list[str]:
    """The subjects of a split; where it is validation and has none, those that validated in the run."""
    names = sorted(name for name, own in splits.items() if own == split)
    if not names and split == "validation":
        names = [name for name in run.get("validation", []) if name in splits]
    return names
