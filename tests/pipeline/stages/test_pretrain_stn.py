"""pretrain stn, as a user runs it: from a data folder to weights, once, and what it does where boxes are missing."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from affect.configs.schema import Config, dump
from affect.pipeline.errors import BoxError, MissingStageError
from affect.pipeline.features.encoder import build_encoder, plan_encoder
from affect.pipeline.features.stn_init import DRAWN_WEIGHTS
from affect.pipeline.ingest.catalog import find_catalog
from affect.pipeline.progress import Reporter
from affect.pipeline.records import Work
from affect.pipeline.stages.audit import audit
from affect.pipeline.stages.pretrain_stn import pretrain_stn
from affect.pipeline.storage.checkpoint import load_weights
from affect.tests.child import output
from affect.tests.programs.libraries import run_stage

QUIET = Reporter(quiet=True)


@pytest.fixture
def ready(demo_data: Path, demo_frames: Path, tmp_path: Path) -> tuple[Path, Work]:
    """A data folder and a work folder with its frames, which a test may change."""
    shutil.copytree(demo_data, tmp_path / "data")
    shutil.copytree(demo_frames, tmp_path / "work")
    return tmp_path / "data", Work(tmp_path / "work")


def boxes_of(data: Path) -> list[Path]:
    return sorted({subject.boxes for subject in find_catalog(data).subjects if subject.boxes})


def test_pretrain_stn_trains_once_and_prints_its_accuracy(ready: tuple[Path, Work], tiny_config: Config) -> None:
    data, work = ready
    report = pretrain_stn(tiny_config, data, work, QUIET)
    assert (report.made, report.kept) == (("stn.safetensors",), ())
    facts = report.facts
    assert facts["trained"]
    assert 0 < facts["iou"] < 1
    assert 0 <= facts["iou_80"] <= 1
    assert facts["frames"] > 0
    assert facts["training_frames"] <= tiny_config.pretrain_stn.frames
    state, metadata = load_weights(work.weights("stn"))
    assert metadata["format"] == "affect-stn"
    assert metadata["stn"] == {"kind": "crop", "view": 32, "crop": 32, "margin": 0.1, "candidates": 4}
    assert metadata["report"]["iou"] == facts["iou"]
    assert [entry.name for entry in work.weights("stn").parent.iterdir()] == ["stn.safetensors"]

    again = pretrain_stn(tiny_config, data, work, QUIET)
    assert (again.made, again.kept) == ((), ("stn.safetensors",))
    assert again.facts == facts
    assert load_weights(work.weights("stn"))[0].keys() == state.keys()


def test_the_same_seed_trains_the_same_weights(ready: tuple[Path, Work], tiny_config: Config) -> None:
    data, work = ready
    pretrain_stn(tiny_config, data, work, QUIET)
    first, _ = load_weights(work.weights("stn"))
    work.weights("stn").unlink()
    pretrain_stn(tiny_config, data, work, QUIET)
    second, _ = load_weights(work.weights("stn"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_it_was_made_from_decides_whether_it_runs_again(ready: tuple[Path, Work], tiny_config: Config) -> None:
    data, work = ready
    pretrain_stn(tiny_config, data, work, QUIET)
    boxes = boxes_of(data)[0]
    boxes.write_text("\n".join(boxes.read_text().splitlines()[:-1]) + "\n")
    assert pretrain_stn(tiny_config, data, work, QUIET).made
    assert pretrain_stn(tiny_config, data, work, QUIET).kept
    other = tiny_config.model_copy(
        update={"pretrain_stn": tiny_config.pretrain_stn.model_copy(update={"learning_rate": 1e-3})}
    )
    assert pretrain_stn(other, data, work, QUIET).made
    wider = tiny_config.model_copy(update={"stn": tiny_config.stn.model_copy(update={"crop": 48, "margin": 0.3})})
    assert pretrain_stn(tiny_config, data, work, QUIET).made
    assert pretrain_stn(wider, data, work, QUIET).kept, "crop and margin do not shape what is learned"
    work.weights("stn").write_bytes(work.weights("stn").read_bytes()[:50])
    assert pretrain_stn(tiny_config, data, work, QUIET).made


def test_a_second_run_needs_no_torch(ready: tuple[Path, Work], tiny_config: Config, tmp_path: Path) -> None:
    data, work = ready
    pretrain_stn(tiny_config, data, work, QUIET)
    (tmp_path / "tiny.yaml").write_text(dump(tiny_config))
    report = json.loads(output(run_stage, "pretrain_stn", tmp_path / "tiny.yaml", data, work.root))
    assert report["kept"]
    assert "torch" not in report["libraries"]


def test_without_boxes_the_stn_stays_as_it_came(
    ready: tuple[Path, Work], tiny_config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    data, work = ready
    tiny_config = tiny_config.model_copy(update={"stn": tiny_config.stn.model_copy(update={"view": 64})})
    shutil.rmtree(boxes_of(data)[0].parent)
    audit(tiny_config, data, work, QUIET)
    report = pretrain_stn(tiny_config, data, work, Reporter())
    assert (report.facts["trained"], report.facts["start"]) == (False, "drawn")
    assert "keeps its initial weights" in capsys.readouterr().err
    given, _ = load_weights(work.weights("stn"))
    shipped, _ = load_weights(DRAWN_WEIGHTS)
    assert torch.equal(given["localiser.presence.weight"], shipped["localiser.presence.weight"].float())


def test_from_scratch_without_boxes_the_stn_is_the_identity_and_later_stages_run(
    ready: tuple[Path, Work], tiny_config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    data, work = ready
    tiny_config = tiny_config.model_copy(
        update={"pretrain_stn": tiny_config.pretrain_stn.model_copy(update={"start": "scratch"})}
    )
    shutil.rmtree(boxes_of(data)[0].parent)
    audit(tiny_config, data, work, QUIET)
    report = pretrain_stn(tiny_config, data, work, Reporter())
    assert report.made
    assert not report.facts["trained"]
    stderr = capsys.readouterr().err
    assert "no training subject has boxes" in stderr
    assert "affect detect-boxes" in stderr
    scratch = tiny_config.model_copy(
        update={
            "backbone": tiny_config.backbone.model_copy(update={"weights": "scratch"}),
            "adapt": tiny_config.adapt.model_copy(update={"epochs": 0}),
        }
    )
    stn, _ = build_encoder(scratch, plan_encoder(scratch, work))
    theta, presence = stn.locate(torch.zeros(2, 3, 64, 64))
    torch.testing.assert_close(theta, torch.eye(2, 3).expand(2, 2, 3))
    assert (presence.sigmoid() > 0.99).all()


def test_damaged_data_is_left_out_and_listed(ready: tuple[Path, Work], tiny_config: Config) -> None:
    data, work = ready
    subjects = {subject.name: subject for subject in find_catalog(data).of_split("train") if subject.boxes}
    bad_boxes, cut_shard, bad_jpeg = sorted(
        name for name, subject in subjects.items() if work.frames(subject.video).is_file() and not subject.side
    )[:3]
    boxes = subjects[bad_boxes].boxes
    assert boxes
    boxes.write_text("frame,x0,y0,x1,y1\n1,5,5,2,9\n")
    shard = work.frames(subjects[cut_shard].video)
    shard.write_bytes(shard.read_bytes()[:3000])
    shard = work.frames(subjects[bad_jpeg].video)
    data_bytes = bytearray(shard.read_bytes())
    middle = data_bytes.index(b"\xff\xd8\xff", len(data_bytes) // 4)
    data_bytes[middle + 40 : middle + 400] = bytes(360)
    shard.write_bytes(data_bytes)
    report = pretrain_stn(tiny_config, data, work, QUIET)
    assert report.facts["trained"]
    assert {problem.name for problem in report.failed} >= {bad_boxes, cut_shard, bad_jpeg}
    assert all(problem.message for problem in report.failed)


def test_without_validation_subjects_some_of_training_are_held_out(
    ready: tuple[Path, Work], tiny_config: Config
) -> None:
    data, work = ready
    for subject in find_catalog(data).of_split("validation"):
        if subject.boxes:
            subject.boxes.unlink(missing_ok=True)
    audit(tiny_config, data, work, QUIET)
    report = pretrain_stn(tiny_config, data, work, QUIET)
    assert report.facts["frames"] > 0


def test_frames_must_be_extracted_first(ready: tuple[Path, Work], tiny_config: Config) -> None:
    data, work = ready
    shutil.rmtree(work.root / "frames")
    with pytest.raises(MissingStageError, match="contains no video"):
        pretrain_stn(tiny_config, data, work, QUIET)


def picture_folder(root: Path, count: int = 40) -> Path:
    """Pictures with a white ellipse as a face, and some without."""
    rng, rows = np.random.default_rng(0), ["image,x0,y0,x1,y1"]
    root.mkdir()
    for number in range(count):
        pixels = rng.integers(0, 120, (60, 80, 3)).astype(np.uint8)
        if number % 4:
            x, y = (int(place) for place in rng.integers((20, 20), (60, 40)))
            cv2.ellipse(pixels, (x, y), (14, 18), 0, 0, 360, (250, 250, 250), -1)
            rows.append(f"{number}.png,{x - 14},{y - 18},{x + 14},{y + 18}")
        cv2.imwrite(str(root / f"{number}.png"), pixels)
    (root / "boxes.csv").write_text("\n".join(rows) + "\n")
    return root


def with_pictures(config: Config, *folders: Path, **settings: object) -> Config:
    update = {"pictures": tuple(map(str, folders)), **settings}
    return config.model_copy(update={"pretrain_stn": config.pretrain_stn.model_copy(update=update)})


def test_it_learns_from_pictures_beside_the_frames(
    ready: tuple[Path, Work], tiny_config: Config, tmp_path: Path
) -> None:
    data, work = ready
    folder = picture_folder(tmp_path / "people")
    frames_alone = pretrain_stn(tiny_config, data, work, QUIET).facts
    config = with_pictures(tiny_config, folder)
    facts = pretrain_stn(config, data, work, QUIET).facts
    assert facts["training_frames"] == frames_alone["training_frames"]
    assert facts["frames"] + facts["training_pictures"] == frames_alone["frames"] + 40
    assert pretrain_stn(config, data, work, QUIET).kept
    (folder / "boxes.csv").write_text((folder / "boxes.csv").read_text().rsplit("\n", 2)[0] + "\n")
    assert pretrain_stn(config, data, work, QUIET).made, "the boxes have changed"


def test_it_learns_from_pictures_alone(ready: tuple[Path, Work], tiny_config: Config, tmp_path: Path) -> None:
    data, work = ready
    shutil.rmtree(boxes_of(data)[0].parent)
    audit(tiny_config, data, work, QUIET)
    folder = picture_folder(tmp_path / "people")
    cv2.imwrite(str(folder / "1.png"), np.zeros((4, 4, 3), np.uint8))
    report = pretrain_stn(with_pictures(tiny_config, folder, start="scratch", epochs=2), data, work, QUIET)
    assert report.facts["trained"]
    assert report.facts["training_frames"] == 0
    assert [problem.name for problem in report.failed] == ["1.png"]


def test_a_wrong_row_of_the_pictures_stops_it_before_it_trains(
    ready: tuple[Path, Work], tiny_config: Config, tmp_path: Path
) -> None:
    data, work = ready
    folder = picture_folder(tmp_path / "people")
    with (folder / "boxes.csv").open("a") as file:
        file.write("2.png,9,9,3,12\n")
    with pytest.raises(BoxError, match=r"boxes\.csv: line 32 holds the box 9,9,3,12, expected x1 > x0"):
        pretrain_stn(with_pictures(tiny_config, folder), data, work, QUIET)
    with pytest.raises(BoxError, match=r"nowhere/boxes\.csv: cannot be read") as caught:
        pretrain_stn(with_pictures(tiny_config, tmp_path / "nowhere"), data, work, QUIET)
    assert caught.value.remedy == "Name a folder with pictures and a boxes.csv."
    assert not work.weights("stn").exists()


@pytest.mark.parametrize("kind", ["similarity", "affine"])
def test_every_kind_trains(ready: tuple[Path, Work], tiny_config: Config, kind: str) -> None:
    data, work = ready
    config = tiny_config.model_copy(update={"stn": tiny_config.stn.model_copy(update={"kind": kind})})
    assert pretrain_stn(config, data, work, QUIET).facts["trained"]
