"""Training and validation subjects, and their cached features. Needs no torch."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from ...configs.schema import Config
from ..errors import InputError, MissingStageError
from ..features.crops import annotation_digest
from ..features.encoder import plan_encoder
from ..ingest.catalog import find_catalog
from ..records import Work
from ..storage.audit_file import accepted_subjects
from ..storage.shard import FEATURES, Shard

CACHE_REMEDY = "Run: affect cache-features --data D --work W"


@dataclass(frozen=True)
class Cached:
    """The attributes of a feature shard. encoder: digest of the networks that computed it. labels: digests of the
    annotation files."""

    subject: str
    path: Path
    split: str
    video: str
    fingerprint: str
    encoder: str
    labels: tuple[str, ...]


def cached_subjects(work: Work) -> dict[str, Cached]:
    """The feature shards of a work folder by subject, sorted by name. Raises ShardError."""
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
    """The shards of subjects that are in the data and accepted by the audit. If the data folder does not exist, or no
    shard has digests of its labels, all shards. Raises MissingStageError if the labels of a subject changed after its
    features were cached."""
    if not data.is_dir() or not any(shard.labels for shard in shards.values()):
        return dict(shards)
    subjects = {subject.name: subject for subject in accepted_subjects(work, find_catalog(data))}
    kept = {name: shard for name, shard in shards.items() if name in subjects}
    for name, shard in kept.items():
        if shard.labels and list(shard.labels) != annotation_digest(subjects[name]):
            raise MissingStageError(f"the labels of {name} changed after its features were cached", CACHE_REMEDY)
    return kept


def divide(splits: Mapping[str, str]) -> tuple[list[str], list[str], str]:
    """(training subjects, validation subjects, note for the user or ""), from the split of each subject.

    Without validation subjects, the last fifth of the training subjects by name is used for validation. Raises
    MissingStageError if a split has no subject.
    """
    training = sorted(name for name, split in splits.items() if split == "train")
    validation = sorted(name for name, split in splits.items() if split == "validation")
    note = ""
    if not validation and len(training) > 1:
        held_out = max(1, len(training) // 5)
        training, validation = training[:-held_out], training[-held_out:]
        note = f"no validation subjects: {', '.join(validation)} of the training split are used for validation"
    if not training or not validation:
        raise MissingStageError(
            f"need at least one training and one validation subject; found {len(training)} and {len(validation)}",
            "Add data, and run `affect all` or the stages from `affect audit` again.",
        )
    return training, validation, note


def parse_fold(text: str) -> tuple[int, int]:
    """(2, 5) for `2/5`. Raises InputError."""
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    which, count = (int(number) for number in found.groups()) if found else (0, 0)
    if not 1 <= which <= count or count < 2:
        raise InputError(f"--fold {text}: expected K/N with N at least 2 and K from 1 to N", "For example: --fold 2/5")
    return which, count


def split_by_fold(splits: Mapping[str, str], videos: Mapping[str, str], fold: str) -> dict[str, str]:
    """New splits for cross-validation: in each fold, every N-th video is used for validation.

    videos: the video of each subject; the subjects of one video stay together. Videos are ordered by a digest of their
    names, so the order in the data has no influence. Raises InputError for a wrong fold or too few videos.
    """
    which, count = parse_fold(fold)
    divided = [name for name, split in splits.items() if split in ("train", "validation")]
    order = sorted({videos[name] for name in divided}, key=lambda video: sha256(video.encode()).hexdigest())
    if len(order) < count:
        raise InputError(f"--fold {fold}: there are only {len(order)} videos", "Use fewer folds.")
    held_out = set(order[which - 1 :: count])
    return {
        name: split if name not in divided else "validation" if videos[name] in held_out else "train"
        for name, split in splits.items()
    }


def evaluated(splits: Mapping[str, str], split: str, run: Mapping[str, Any]) -> list[str]:
    """The subjects of a split to evaluate. For a run on a fold, those that the run used. If the validation split is
    empty, those that the run validated on."""
    if run.get("fold") and split in ("train", "validation"):
        return sorted(name for name in run[split] if name in splits)
    names = sorted(name for name, own in splits.items() if own == split)
    if not names and split == "validation":
        names = [name for name in run.get("validation", []) if name in splits]
    return names


def cached_shards(config: Config, work: Work) -> dict[str, Cached]:
    """The feature shards. Raises MissingStageError if there are none, or if other networks computed them."""
    shards = cached_subjects(work)
    if not shards:
        raise MissingStageError(f"{work.root / 'features'} has no features", CACHE_REMEDY)
    encoder = plan_encoder(config, work).digest
    for name, shard in shards.items():
        if shard.encoder != encoder:
            raise MissingStageError(f"the features of {name} come from other weights or settings", CACHE_REMEDY)
    return shards


def annotated(tracks: Sequence[Any]) -> list[Any]:
    """The tracks with annotated frames. Raises MissingStageError if there are none."""
    found = [track for track in tracks if track.valid.any()]
    if not found:
        raise MissingStageError(
            f"none of {len(tracks)} subjects ({tracks[0].subject}, ...) has an annotated frame", "See `affect audit`."
        )
    return found
