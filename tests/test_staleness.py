"""Which outputs become stale if a setting, source, annotation or weights file changes. There is a row for each setting.

The pipeline runs with fake outputs. Each one has the fingerprint that its stage would give it, and content that depends
on the fingerprint, and is written again if its fingerprint changed. So the tests follow a change through all dependent
outputs, and only write small files.
"""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from affect.configs.schema import Config, Section
from affect.pipeline.features.crops import annotation_digest, fresh_frames
from affect.pipeline.features.encoder import BACKBONE_FORMAT, STN_FORMAT, plan_encoder, stn_digest, stored_fingerprint
from affect.pipeline.ingest.catalog import find_catalog
from affect.pipeline.learning import end_to_end, from_cache
from affect.pipeline.progress import Reporter
from affect.pipeline.records import Work
from affect.pipeline.stages.adapt import adapted_fingerprint
from affect.pipeline.stages.audit import audit
from affect.pipeline.stages.cache_features import cache_features, features_fingerprint
from affect.pipeline.stages.evaluate import evaluate
from affect.pipeline.stages.extract_frames import extract_frames, frames_fingerprint
from affect.pipeline.stages.predict import PredictOptions, predict
from affect.pipeline.stages.pretrain_backbone import backbone_fingerprint
from affect.pipeline.stages.pretrain_stn import stn_fingerprint
from affect.pipeline.stages.train import ONLY_END_TO_END, ONLY_FROM_CACHE, RunOptions, plan_run, train
from affect.pipeline.storage.audit_file import accepted_subjects
from affect.pipeline.storage.checkpoint import save_weights
from affect.pipeline.storage.shard import FEATURES, FRAMES, ShardWriter, is_fresh

QUIET = Reporter(quiet=True)

STN = frozenset({"stn", "adapted", "features", "run", "raw"})
BACKBONE = frozenset({"backbone", "adapted", "features", "run", "raw"})
ADAPTED = frozenset({"adapted", "features", "run", "raw"})
FEATURES_ON = frozenset({"features", "run"})
BOTH = frozenset({"run", "raw"})
RUN, RAW = frozenset({"run"}), frozenset({"raw"})
ALL = STN | BACKBONE
NONE: frozenset[str] = frozenset()

ROWS: dict[str, tuple[Any, frozenset[str]]] = {
    "name": ("other", NONE),
    "frames.size": (80, ALL - {"backbone"} | {"frames"}),
    "frames.jpeg_quality": (90, ALL - {"backbone"} | {"frames"}),
    "stn.localiser": ("none", ADAPTED),
    "stn.kind": ("affine", STN),
    "stn.view": (48, STN),
    "stn.crop": (48, ADAPTED),
    "stn.margin": (0.2, ADAPTED),
    "detect_boxes.gap_seconds": (2.0, NONE),
    "pretrain_stn.start": ("scratch", STN),
    "pretrain_stn.frames": (32, STN),
    "pretrain_stn.validation_frames": (99, STN),
    "pretrain_stn.pictures": (("people",), STN),  # a folder beside the data
    "pretrain_stn.epochs": (2, STN),
    "pretrain_stn.batch": (8, STN),
    "pretrain_stn.learning_rate": (1e-3, STN),
    "pretrain_stn.ema": (0.5, STN),
    "backbone.weights": ("scratch", ADAPTED),
    "pretrain_backbone.start": ("imagenet", BACKBONE),
    "pretrain_backbone.size": (48, BACKBONE),
    "pretrain_backbone.labels": ("majority", BACKBONE),
    "pretrain_backbone.epochs": (2, BACKBONE),
    "pretrain_backbone.batch": (16, BACKBONE),
    "pretrain_backbone.learning_rate": (1e-3, BACKBONE),
    "pretrain_backbone.weight_decay": (0.1, BACKBONE),
    "pretrain_backbone.label_smoothing": (0.1, BACKBONE),
    "pretrain_backbone.ema": (0.5, BACKBONE),
    "adapt.epochs": (2, ADAPTED),
    "adapt.epochs_from_scratch": (3, ADAPTED),
    "adapt.frames": (32, ADAPTED),
    "adapt.validation_frames": (99, ADAPTED),
    "adapt.batch": (8, ADAPTED),
    "adapt.learning_rate": (1e-3, ADAPTED),
    "adapt.weight_decay": (0.1, ADAPTED),
    "adapt.dropout": (0.1, ADAPTED),
    "adapt.ema": (0.5, ADAPTED),
    "features.views": (2, FEATURES_ON),
    "features.batch": (16, NONE),
    "clip.length": (12, BOTH),
    "clip.hop": (4, BOTH | {"evaluation", "prediction"}),
    "clip.carry": (True, BOTH | {"evaluation", "prediction"}),
    "head.kind": ("tcn", BOTH),
    "head.project": (8, BOTH),
    "head.hidden": (8, BOTH),
    "head.layers": (2, BOTH),
    "head.blocks": (2, BOTH),
    "head.bidirectional": (True, BOTH),
    "head.dense": ((4,), BOTH),
    "head.dropout": (0.1, BOTH),
    "head.readout": ("clip", BOTH),
    "train.epochs": (4, BOTH),
    "train.batch": (16, RUN),
    "train.batch_end_to_end": (3, RAW),
    "train.accumulate": (2, BOTH),
    "train.learning_rate": (1e-4, BOTH),
    "train.started_rate": (0.5, BOTH),
    "train.learning_rate_backbone": (1e-4, RAW),
    "train.learning_rate_stn": (1e-4, RAW),
    "train.unfreeze_backbone": (2, RAW),
    "train.unfreeze_stn": (2, RAW),
    "train.weight_decay": (0.1, BOTH),
    "train.schedule": ("constant", BOTH),
    "train.warmup": (0.1, BOTH),
    "train.loss": ("ccc", BOTH),
    "train.valence_weight": (0.6, BOTH),
    "train.box_weight": (2.0, RAW),
    "train.gradient_clip": (2.0, BOTH),
    "train.patience": (4, BOTH),
    "train.ema": (0.5, BOTH),
    "train.balance": ("plane", BOTH),
    "train.state_minutes": (5.0, NONE),
    "train.noise": (0.1, RUN),
    "train.time_mask": (0.1, RUN),
    "train.speed": (0.1, RUN),
    "train.tensorboard": (True, NONE),
    "smooth.kind": ("median", BOTH),
    "smooth.widths": ((3,), BOTH),
    "predict.no_face": ("empty", frozenset({"prediction"})),
    "predict.face_threshold": (0.1, frozenset({"prediction"})),
    "predict.level": (0.8, frozenset({"evaluation", "prediction"})),
    "report.video_mib": (1.0, NONE),
    "runtime.seed": (1, ALL),
    # Devices differ in last bits; which one it was is recorded.
    "runtime.device": ("auto", NONE),
    "runtime.precision": ("bf16", ALL | {"evaluation", "prediction"}),
    "runtime.workers": (2, NONE),
    "runtime.decode_seconds": (30.0, NONE),
}
"""Of each setting: another value than the base's, and what is stale with it. `run` is trained from cache, `raw` end to
end; `evaluation` and `prediction` are of a run that is there, whatever the config would train."""


def leaves(section: type[Section] = Config, prefix: str = "") -> list[str]:
    found = []
    for name, it in section.model_fields.items():
        inner = isinstance(it.annotation, type) and issubclass(it.annotation, Section)
        found += leaves(it.annotation, f"{name}.") if inner else [f"{prefix}{name}"]  # type: ignore[arg-type]
    return found


def test_every_setting_has_a_row_in_this_file() -> None:
    assert sorted(ROWS) == sorted(leaves())


@pytest.mark.parametrize(("ignored", "module"), [(ONLY_FROM_CACHE, end_to_end), (ONLY_END_TO_END, from_cache)])
def test_a_setting_that_is_not_in_a_fingerprint_is_not_used(ignored: set[str], module: ModuleType) -> None:
    read = set(re.findall(r"\b(?:settings|train)\.(\w+)", Path(str(module.__file__)).read_text(encoding="utf-8")))
    assert {"learning_rate", "loss"} <= read
    assert not read & ignored


@dataclass
class Pipeline:
    """A data folder, a work folder, and what the last call of `update` made: `frames/a`, `stn`, ..."""

    data: Path
    ferplus: Path
    work: Work
    made: set[str] = field(default_factory=set)

    def copy(self, root: Path) -> "Pipeline":
        """A copy that a test may change. Videos and boxes keep their modification times."""
        shutil.copytree(self.data, root / "data", copy_function=shutil.copy2)
        shutil.copytree(self.work.root, root / "work")
        return Pipeline(root / "data", self.ferplus, Work(root / "work"))

    def update(self, config: Config) -> set[str]:
        """Writes each stale output; returns the names of the stale outputs."""
        self.made = set()
        catalog = find_catalog(self.data)
        subjects = accepted_subjects(self.work, catalog)
        for video in catalog.videos:
            self._shard(f"frames/{video.name}", FRAMES, frames_fingerprint(config, video.path), lost=[])
        self._weights("stn", STN_FORMAT, lambda: stn_fingerprint(config, subjects, self.work))
        self._weights("backbone", BACKBONE_FORMAT, lambda: backbone_fingerprint(config, self.ferplus))
        if config.adapt.epochs:
            known = {"stn_digest": stn_digest(config, self.work)}
            self._weights("adapted", BACKBONE_FORMAT, lambda: adapted_fingerprint(config, subjects, self.work), **known)
        plan = plan_encoder(config, self.work)
        assert not any("another STN" in warning for warning in plan.warnings)
        for subject in subjects:
            video = catalog.video(subject.video)
            key = features_fingerprint(config, plan, subject, video.path, fresh_frames(config, video, self.work))
            own = {"split": subject.split, "video": subject.video, "encoder": plan.digest}
            self._shard(f"features/{subject.name}", FEATURES, key, **own, labels=annotation_digest(subject))
        self._key("run", plan_run(config, self.data, self.work, RunOptions()).fingerprint)
        self._key("raw", plan_run(config, self.data, self.work, RunOptions(end_to_end=True)).fingerprint)
        return self.made

    def _shard(self, name: str, form: str, key: str, **attributes: Any) -> None:
        path = self.work.root / f"{name}.h5"
        if not is_fresh(path, form, key):
            self.made.add(name)
            with ShardWriter(path, form, key, {}, name, attributes) as writer:
                writer.append(index=np.arange(2), pts=np.arange(2) / 25)

    def _weights(self, name: str, form: str, key: Callable[[], str], **metadata: Any) -> None:
        import torch

        path = self.work.weights(name)
        if stored_fingerprint(path) != (current := key()):
            self.made.add(name)
            content = torch.tensor(list(bytes.fromhex(current)))
            save_weights(path, {"content": content}, {"format": form, "fingerprint": current, **metadata})

    def _key(self, name: str, key: str) -> None:
        path = self.work.root / f"{name}.key"
        if not path.is_file() or path.read_text() != key:
            self.made.add(name)
            path.write_text(key)


def stages(made: set[str]) -> set[str]:
    return {name.partition("/")[0] for name in made}


@pytest.fixture(scope="module")
def base(tiny_config: Config) -> Config:
    """Settings under which every artefact is made."""
    values = tiny_config.model_dump()
    values["head"]["bidirectional"] = False
    values["train"]["patience"] = 3
    values["runtime"] |= {"device": "cpu", "precision": "fp32"}
    return Config.model_validate(values)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory, write_data: Callable[[Path], Path], base: Config) -> Pipeline:
    """Up to date with `base`. Read only: copy it to change it."""
    root = tmp_path_factory.mktemp("stale")
    (root / "ferplus").mkdir()
    for name in ("fer2013.csv", "fer2013new.csv"):
        (root / "ferplus" / name).write_text("faces")
    (root / "people").mkdir()
    (root / "people" / "boxes.csv").write_text("image,x0,y0,x1,y1\n")
    found = Pipeline(write_data(root / "data"), root / "ferplus", Work(root / "work"))
    audit(base, found.data, found.work, QUIET)
    assert stages(found.update(base)) == ALL | {"frames"}
    assert found.update(base) == set()
    return found


def changed(config: Config, setting: str, value: Any) -> Config:
    values = config.model_dump()
    section, dot, key = setting.partition(".")
    place = values[section] if dot else values
    assert place[key or section] != value, "the row's value is the base's"
    place[key or section] = value
    return Config.model_validate(values)


@pytest.mark.parametrize("setting", ROWS)
def test_a_changed_setting_makes_only_dependent_outputs_stale(
    pipeline: Pipeline, base: Config, setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pipeline.data.parent)
    value, stale = ROWS[setting]
    changed_copy = pipeline.copy(tmp_path)
    if setting == "pretrain_backbone.start":
        value = str(changed_copy.ferplus / "fer2013.csv")  # any file
    other = changed(base, setting, value)
    assert stages(changed_copy.update(other)) == stale - {"evaluation", "prediction"}
    assert changed_copy.update(other) == set()


DIRECT = {setting: {it for it in stale if it in ("evaluation", "prediction")} for setting, (_, stale) in ROWS.items()}


@pytest.mark.slow
def test_evaluation_and_prediction_depend_on_the_run_and_on_few_settings(
    tmp_path: Path,
    write_data: Callable[[Path], Path],
    write_video: Callable[[Path, int], Path],
    whole_frame_config: Config,
) -> None:
    data, work, out = write_data(tmp_path / "data"), Work(tmp_path / "work"), tmp_path / "out"
    once = whole_frame_config.model_copy(
        update={
            "train": whole_frame_config.train.model_copy(update={"epochs": 1}),
            "head": whole_frame_config.head.model_copy(update={"bidirectional": False}),
        }
    )
    audit(once, data, work, QUIET)
    extract_frames(once, data, work, QUIET)
    cache_features(once, data, work, QUIET)
    train(once, data, work, QUIET)
    video = write_video(tmp_path / "three_frames.mp4", 3)

    def made(config: Config) -> set[str]:
        reports = {
            "evaluation": evaluate(config, data, work, QUIET),
            "prediction": predict(config, [video], work.run("default"), out, QUIET, PredictOptions(plot=False)),
        }
        return {name for name, report in reports.items() if report.made}

    assert made(once) == {"evaluation", "prediction"}
    for setting, (value, _) in ROWS.items():
        expected = DIRECT[setting]
        section, _, key = setting.partition(".")
        if value == (getattr(getattr(once, section), key) if key else once.name):
            continue  # as `whole_frame_config` has it
        assert made(changed(once, setting, value)) == expected, setting
        if expected:
            assert made(once) == expected, f"{setting}, and back"


def boxes_of(pipeline: Pipeline, name: str) -> Path:
    return pipeline.data / "bounding_boxes" / f"{name}.csv"


def touch_video(pipeline: Pipeline) -> None:
    path = pipeline.data / "videos" / "b.mp4"
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def change_labels(pipeline: Pipeline) -> None:
    path = pipeline.data / "VA_Set" / "Train_Set" / "b.txt"
    path.write_text(path.read_text().replace("\n", "\n0.5,0.5\n", 1).rpartition("\n")[0].rpartition("\n")[0] + "\n")


def change_boxes(pipeline: Pipeline) -> None:
    path = boxes_of(pipeline, "b")
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")


def change_votes(pipeline: Pipeline) -> None:
    (pipeline.ferplus / "fer2013new.csv").write_text("other votes")


LEARNED = {"adapted", "run", "raw"} | {f"features/{name}" for name in "abcv"}
SOURCES: list[tuple[Callable[[Pipeline], None], str, set[str]]] = [
    (touch_video, "stn", {"frames/b", "stn", *LEARNED}),
    (touch_video, "none", {"frames/b", "features/b", "run", "raw"}),
    (change_labels, "stn", LEARNED),
    (change_labels, "none", {"features/b", "run", "raw"}),
    (change_boxes, "stn", {"stn", *LEARNED}),
    (change_boxes, "none", {"raw"}),
    (change_boxes, "box", {"features/b", "run", "raw"}),
    (change_votes, "stn", {"backbone", *LEARNED}),
]


@pytest.mark.parametrize(("change", "localiser", "stale"), SOURCES)
def test_a_changed_source_makes_only_dependent_outputs_stale(
    pipeline: Pipeline,
    base: Config,
    tmp_path: Path,
    change: Callable[[Pipeline], None],
    localiser: str,
    stale: set[str],
) -> None:
    """With stn the backbone is adapted too; with the others nothing is learned before the features."""
    changed_copy = pipeline.copy(tmp_path)
    changed_copy.ferplus = Path(shutil.copytree(pipeline.ferplus, tmp_path / "ferplus", copy_function=shutil.copy2))
    config = changed(base, "stn.localiser", localiser) if localiser != "stn" else base
    if localiser != "stn":
        config = changed(config, "adapt.epochs", 0)
    changed_copy.update(config)
    change(changed_copy)
    audit(config, changed_copy.data, changed_copy.work, QUIET)
    assert changed_copy.update(config) - ({"stn"} if localiser != "stn" else set()) == stale
    assert changed_copy.update(config) == set()


def test_changed_boxes_make_the_adapted_backbone_stale_with_every_localiser(
    pipeline: Pipeline, base: Config, tmp_path: Path
) -> None:
    """Training leaves out frames without a box."""
    changed_copy, config = pipeline.copy(tmp_path), changed(base, "stn.localiser", "none")
    changed_copy.update(config)
    change_boxes(changed_copy)
    audit(config, changed_copy.data, changed_copy.work, QUIET)
    assert "adapted" in changed_copy.update(config)


@pytest.mark.parametrize("name", ["stn", "backbone", "adapted"])
def test_changed_weights_make_only_dependent_outputs_stale(
    pipeline: Pipeline, base: Config, tmp_path: Path, name: str
) -> None:
    """As where a file is replaced by another of the same fingerprint: its content counts."""
    import torch

    changed_copy = pipeline.copy(tmp_path)
    config = base if name == "adapted" else changed(base, "adapt.epochs", 0)
    changed_copy.update(config)
    path = changed_copy.work.weights(name)
    key = stored_fingerprint(path)
    metadata = {"format": STN_FORMAT if name == "stn" else BACKBONE_FORMAT, "fingerprint": key}
    if name == "adapted":
        metadata["stn_digest"] = stn_digest(config, changed_copy.work)
    save_weights(path, {"content": torch.zeros(3)}, metadata)
    assert stages(changed_copy.update(config)) == {"features", "run", "raw"}


def test_a_replaced_crop_makes_its_subject_stale(pipeline: Pipeline, base: Config, tmp_path: Path) -> None:
    changed_copy = pipeline.copy(tmp_path)
    for name in "abcv":
        crops = changed_copy.data / "cropped_aligned" / name
        crops.mkdir(parents=True)
        for row in range(1, 19):
            (crops / f"{row:05d}.jpg").write_bytes(b"a crop")
    config = changed(changed(base, "stn.localiser", "aligned"), "adapt.epochs", 0)
    audit(config, changed_copy.data, changed_copy.work, QUIET)
    changed_copy.update(config)
    (changed_copy.data / "cropped_aligned" / "b" / "00003.jpg").write_bytes(b"a better crop")
    assert changed_copy.update(config) == {"features/b", "run", "raw"}
