"""Which subjects a model learns from and which it is judged by, and what is cached of them. Needs no torch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..errors import InputError, MissingStageError
from ..ingest.catalog import find_catalog
from ..records import Work
from ..storage.shard import FEATURES, Shard
from .audit_record import accepted_subjects
from .looking import annotation_digest

CACHE_REMEDY = "Run: affect cache-features --data D --work W"


@dataclass(frozen=True)
class Cached:
    """A feature shard, by its attributes. encoder: the digest of what computed it. labels: of the annotation files."""

    subject: str
    path: Path
    split: str
    video: str
    fingerprint: str
    encoder: str
    labels: tuple[str, ...]


def cached_subjects(work: Work) -> dict[str, Cached]:
    """The feature shards of a work folder by subject, in the order of the names. Raises ShardError."""
    found: dict[str, Cached] = {}
    for path in sorted((work.root / "features").glob("*.h5")):
        with Shard(path, FEATURES) as shard:
            own = shard.attributes
            found[path.stem] = Cached(
                path.stem, path, own["split"], own.get("video", path.stem), shard.fingerprint, own["encoder"],
                tuple(own.get("labels", ())),
            )  # fmt: skip
    return found


def in_step(shards: Mapping[str, Cached], data: Path, work: Work) -> dict[str, Cached]:
    """The shards of subjects that are still in the data and accepted by the audit. Where there is no data folder any
    more, or the shards do not say what labels they hold, all. Raises MissingStageError where a subject's labels changed
    after its features were cached."""
    if not data.is_dir() or not any(shard.labels for shard in shards.values()):
        return dict(shards)
    subjects = {subject.name: subject for subject in accepted_subjects(work, find_catalog(data))}
    kept = {name: shard for name, shard in shards.items() if name in subjects}
    for name, shard in kept.items():
        if shard.labels and list(shard.labels) != annotation_digest(subjects[name]):
            raise MissingStageError(f"the labels of {name} changed after its features were cached", CACHE_REMEDY)
    return kept


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


def parse_fold(text: str) -> tuple[int, int]:
    """(which, of how many) of `2/5`, from 1. Raises InputError."""
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    which, count = (int(number) for number in found.groups()) if found else (0, 0)
    if not 1 <= which <= count or count < 2:
        raise InputError(f"--fold {text}: expected K/N with N at least 2 and K from 1 to N", "For example: --fold 2/5")
    return which, count


def redeal(splits: Mapping[str, str], videos: Mapping[str, str], fold: str) -> dict[str, str]:
    """The splits with the subjects of train and validation dealt anew: every N-th video validates in one of the folds.

    videos: of each subject; those of one video stay together. They are dealt by a digest of their names, so neither
    their order nor their number in a batch folder decides. Raises InputError, also where there are too few videos.
    """
    which, count = parse_fold(fold)
    dealt = [name for name, split in splits.items() if split in ("train", "validation")]
    order = sorted({videos[name] for name in dealt}, key=lambda video: sha256(video.encode()).hexdigest())
    if len(order) < count:
        raise InputError(f"--fold {fold}: there are {len(order)} videos to deal", "Use fewer folds.")
    judged = set(order[which - 1 :: count])
    return {
        name: split if name not in dealt else "validation" if videos[name] in judged else "train"
        for name, split in splits.items()
    }


def evaluated(splits: Mapping[str, str], split: str, run: Mapping[str, Any]) -> list[str]:
    """The subjects of a split; of a run on a fold, those it learned from or validated on; where the split is validation
    and has none, those that validated in the run."""
    if run.get("fold") and split in ("train", "validation"):
        return sorted(name for name in run[split] if name in splits)
    names = sorted(name for name, own in splits.items() if own == split)
    if not names and split == "validation":
        names = [name for name in run.get("validation", []) if name in splits]
    return names
