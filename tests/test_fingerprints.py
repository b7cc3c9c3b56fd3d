"""A work folder of an earlier version is up to date: the fingerprints of every stage, pinned at commit 4c40bfe.

The files are hollow: they have fingerprints and hardly any content. If a value changes, the stage runs again in every
work folder that users have. Change it here only together with a `VERSION`, a default or a format, and tell the users in
CHANGELOG.md.
"""

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from affect.configs.schema import Config, load
from affect.pipeline.features.crops import annotation_digest, frames_fingerprint, fresh_frames
from affect.pipeline.features.encoder import BACKBONE_FORMAT, STN_FORMAT, plan_encoder, stn_digest
from affect.pipeline.ingest.catalog import find_catalog
from affect.pipeline.progress import Reporter
from affect.pipeline.records import Work
from affect.pipeline.stages.adapt import adapted_fingerprint
from affect.pipeline.stages.cache_features import features_fingerprint
from affect.pipeline.stages.evaluate import evaluate
from affect.pipeline.stages.export import export
from affect.pipeline.stages.predict import PredictOptions, predict
from affect.pipeline.stages.pretrain_backbone import backbone_fingerprint
from affect.pipeline.stages.pretrain_stn import stn_fingerprint
from affect.pipeline.stages.train import RunOptions, plan_run
from affect.pipeline.storage.audit_file import accepted_subjects
from affect.pipeline.storage.checkpoint import save_weights
from affect.pipeline.storage.shard import FEATURES, FRAMES
from affect.pipeline.storage.shard_writer import ShardWriter

QUIET = Reporter(quiet=True)
SPLITS = {"a": "Train_Set", "b": "Train_Set", "v": "Validation_Set"}
PINNED = {
    "frames/a": "514fffbfc9c1c4c032fad2b8f1843663ddb136f6cecf04830d7d6ca9a5abb632",
    "frames/b": "fc749bc9f9d3ca2bdb4e4dfdd765091e8b5578f589df7f19076bcd5be7664c90",
    "frames/v": "a6144140f5568a3b21487417282d09f971420e5c2c665718406658dca62a582f",
    "stn": "6db1fcb6d985fba28cb3ab47b3fd7b76d45e9bc592705ebb517de5a3afbb69ab",
    "backbone": "2313d1cf97020b8787c1d6296571cadf480a7a7b6944f795c571ba85bb3466fb",
    "adapted": "60dfaabeea5caf94f453604562a27719e5a57967a0e3334818f345e8b00c32c9",
    "encoder": "356263e15cd4b0ab4f4bb94009a8e07aaabff9e6ad281bb064afaac80f714a95",
    "features/a": "85fd6716f77202e86a4b3f166e358486ee5d68768c06aca11c270fa765860165",
    "features/b": "9bc5dc432df35f6ad9ec9b7fd15f64fb1f038ee1ed4743ddad53c40c185e3264",
    "features/v": "722b7fb2ef69872b7bc7020df7621e951feaee0c87fde207495b6d51e124274d",
    "run": "6e9007b2ab1638a69d67c27188c640f198c38b1d85e743107a9bc99dd1f4da45",
    "run on a fold": "94295632829cc93af9e5fac1c0967b3aa61d1f5ba6bbe47781f9f61656f203d2",
    "run end to end": "b449c75dfd55979c56ea0b484969e416f3587f761fce2cd8ac11c86ba1200123",
    "evaluation": "a1e193ff503b431cfc26ddc243ed8472af905f7105156156826cd14d0a830f98",
    "prediction": "308c6be34193fb3c6da1c428300edd7f1b2a363d24404070a2dc1e8245c1a589",
    "export": "614732bb2519753625af921f39bdeef1cef028944d3259e179e6efa104356f33",
}


def write(path: Path, content: bytes) -> None:
    """Writes a file whose time of change is always the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(10**18, 10**18))


def write_data(root: Path) -> tuple[Path, Path]:
    """A data folder whose videos have no frames, and a FER+ folder without pictures."""
    data, ferplus = root / "data", root / "ferplus"
    for number, (name, split) in enumerate(SPLITS.items()):
        write(data / "videos" / f"{name}.mp4", struct.pack(">I4s4sI", 16, b"ftyp", b"isom", number))
        write(data / "VA_Set" / split / f"{name}.txt", b"valence,arousal\n" + b"0.5,-0.25\n" * (number + 2))
        write(data / "bounding_boxes" / f"{name}.csv", b"frame,x0,y0,x1,y1\n1,2,3,40,50\n")
    write(ferplus / "fer2013.csv", b"faces")
    write(ferplus / "fer2013new.csv", b"votes")
    return data, ferplus


def write_work(config: Config, data: Path, ferplus: Path, work: Work) -> dict[str, str]:
    """Writes hollow artefacts from the audit to the features. Returns the fingerprint of each, and those of runs."""
    found: dict[str, str] = {}
    catalog = find_catalog(data)
    entries = [{"name": subject.name, "split": subject.split, "status": "ok"} for subject in catalog.subjects]
    audit = {"format": "affect-audit", "version": 1, "subjects": entries, "videos": [], "problems": []}
    write(work.audit, json.dumps(audit).encode())
    subjects = accepted_subjects(work, catalog)

    def shard(name: str, form: str, key: str, **attributes: str | list[str]) -> None:
        found[name] = key
        with ShardWriter(work.root / f"{name}.h5", form, key, {}, Path(name).name, attributes) as writer:
            writer.append(index=np.arange(2), pts=np.arange(2) / 25)

    def weights(name: str, key: str, **metadata: str) -> None:
        found[name] = key
        save_weights(work.weights(name), {"content": torch.arange(4)}, {"fingerprint": key, **metadata})

    for video in catalog.videos:
        shard(f"frames/{video.name}", FRAMES, frames_fingerprint(config, video.path), lost=[])
    weights("stn", stn_fingerprint(config, subjects, work), format=STN_FORMAT)
    weights("backbone", backbone_fingerprint(config, ferplus), format=BACKBONE_FORMAT)
    adapted, stn = adapted_fingerprint(config, subjects, work), stn_digest(config, work)
    weights("adapted", adapted, format=BACKBONE_FORMAT, stn_digest=stn)
    plan = plan_encoder(config, work)
    found["encoder"] = plan.digest
    for subject in subjects:
        video = catalog.video(subject.video)
        key = features_fingerprint(config, plan, subject, video.path, fresh_frames(config, video, work))
        own = {"split": subject.split, "video": subject.video, "encoder": plan.digest}
        shard(f"features/{subject.name}", FEATURES, key, **own, labels=annotation_digest(subject))
    found["run"] = plan_run(config, data, work, RunOptions()).fingerprint
    found["run on a fold"] = plan_run(config, data, work, RunOptions(fold="1/2")).fingerprint
    found["run end to end"] = plan_run(config, data, work, RunOptions(end_to_end=True)).fingerprint
    return found


def write_run(config: Config, work: Work, encoder: str) -> Path:
    """A run whose model has no weights."""
    folder = work.run("default")
    metadata = {
        "format": "affect-model",
        "fingerprint": "a model",
        "encoder": encoder,
        "config": config.model_dump(mode="json"),
        "clip": {"length": config.clip.length},
        "backbone": {"classes": []},
    }
    save_weights(folder / "model.safetensors", {"content": torch.arange(4)}, metadata)
    write(folder / "run.json", json.dumps({"run": "default", "fold": None}).encode())
    return folder


@pytest.fixture
def config() -> Config:
    return load("demo", ["runtime.device=cpu", "runtime.precision=fp32"])


def test_the_files_of_every_stage_have_the_fingerprints_of_earlier_versions(config: Config, tmp_path: Path) -> None:
    data, ferplus = write_data(tmp_path)
    found = write_work(config, data, ferplus, Work(tmp_path / "work"))
    assert found == {name: key for name, key in PINNED.items() if name not in ("evaluation", "prediction", "export")}


def test_evaluation_prediction_and_export_of_earlier_versions_are_kept(config: Config, tmp_path: Path) -> None:
    data, ferplus = write_data(tmp_path)
    work, out = Work(tmp_path / "work"), tmp_path / "out"
    found = write_work(config, data, ferplus, work)
    run = write_run(config, work, found["encoder"])

    record = {"fingerprint": PINNED["evaluation"], "run": "default", "split": "validation", "failed": []}
    write(run / "evaluation-validation.json", json.dumps(record).encode())
    write(run / "predictions-validation.csv", b"")
    assert evaluate(config, data, work, QUIET).kept == ("validation",)

    video = data / "videos" / "v.mp4"
    files = [".csv", ".clips.csv"]
    facts = {"face_share": 1.0, "lost": 0}
    record = {"fingerprint": PINNED["prediction"], "source": str(video), "facts": facts, "files": files}
    write(out / "v.facts.json", json.dumps(record).encode())
    for suffix in files:
        write(out / f"v{suffix}", b"")
    assert predict(config, [video], run, out, QUIET, PredictOptions(plot=False)).kept == ("v",)

    exported = {"fingerprint": PINNED["export"], "facts": {"files": {"head.pt2": 0}}}
    write(out / "export.json", json.dumps(exported).encode())
    write(out / "head.pt2", b"")
    assert export(config, run, out, QUIET, formats=("pt2",), check=[video]).kept == ("head.pt2",)
