"""Adaptation: which frames it draws, that a label stays with its frame, and what it leaves behind."""

import csv
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from affect.configs.schema import Config, load
from affect.models.stn import SpatialTransformer
from affect.pipeline.errors import InputError, MissingStageError
from affect.pipeline.features.encoder import plan_encoder
from affect.pipeline.features.frame_sampling import allocate_evenly, sample_frames
from affect.pipeline.ingest.catalog import find_catalog
from affect.pipeline.learning.augment import crop_centre
from affect.pipeline.progress import Reporter
from affect.pipeline.records import StageReport, Work
from affect.pipeline.stages.adapt import adapt, gather
from affect.pipeline.stages.audit import audit
from affect.pipeline.stages.extract_frames import extract_frames
from affect.pipeline.storage.audit_file import accepted_subjects
from affect.pipeline.storage.checkpoint import read_metadata
from affect.pipeline.storage.shard import FrameShard
from hypothesis import given
from hypothesis import strategies as st

QUIET = Reporter(quiet=True)
CPU = torch.device("cpu")
FRAMES = 48
SPLITS = {"a": "Train_Set", "b": "Train_Set", "duo_left": "Train_Set", "duo_right": "Train_Set", "v": "Validation_Set"}
UNKNOWN = range(10, 16)


def write_video(path: Path, second: int = 0) -> None:
    """Frame k is 30 + 4 k bright; its right half `second` more."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(FRAMES):
            picture = np.full((64, 96, 3), 30 + 4 * number, np.uint8)
            picture[:, 48:] += second
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))


def valence(frame: int) -> float:
    return round((frame - FRAMES / 2) / FRAMES, 4)


def settings(*more: str) -> Config:
    return load(
        "demo",
        [
            "frames.size=64", "stn.localiser=none", "stn.view=32", "stn.crop=32", "adapt.epochs=1",
            "adapt.epochs_from_scratch=1", "adapt.batch=8", "adapt.frames=64", "adapt.validation_frames=16",
            "features.batch=7", "runtime.workers=0", *more,
        ],
    )  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("adapt")
    (root / "videos").mkdir()
    (root / "bounding_boxes").mkdir()
    for name in ("a", "b", "v"):
        write_video(root / "videos" / f"{name}.mp4")
    write_video(root / "videos" / "duo.mp4", second=20)
    for name, split in SPLITS.items():
        folder = root / "annotations" / "VA_Set" / split
        folder.mkdir(parents=True, exist_ok=True)
        rows = [("-5,-5" if k in UNKNOWN else f"{valence(k)},{-valence(k)}") for k in range(FRAMES)]
        (folder / f"{name}.txt").write_text("\n".join(["valence,arousal", *rows]) + "\n")
    boxes = [f"{k + 1},24,16,72,48" for k in range(FRAMES) if k < 40]
    (root / "bounding_boxes" / "a.csv").write_text("\n".join(["frame,x0,y0,x1,y1", *boxes]) + "\n")
    return root


@pytest.fixture(scope="module")
def work(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Work:
    work = Work(tmp_path_factory.mktemp("work"))
    audit(settings(), data, work, QUIET)
    extract_frames(settings(), data, work, QUIET)
    return work


@pytest.fixture(scope="module")
def adapted(data: Path, work: Work) -> StageReport:
    return adapt(settings(), data, work, QUIET)


@given(st.lists(st.integers(0, 50), max_size=12), st.integers(0, 400))
def test_frames_are_shared_evenly_between_subjects(available: list[int], total: int) -> None:
    shares = allocate_evenly(available, total)
    assert sum(shares) == min(total, sum(available))
    assert all(0 <= share <= possible for share, possible in zip(shares, available, strict=True))
    short = [share for share, possible in zip(shares, available, strict=True) if share < possible]
    assert not short or max(shares) - min(short) <= 1


def test_a_label_stays_with_its_frame(data: Path, work: Work) -> None:
    config, catalog = settings(), find_catalog(data)
    draws, problems = sample_frames(config, catalog, accepted_subjects(work, catalog), work, "train", 64)
    assert not problems
    assert {draw.subject.name: len(draw.rows) for draw in draws} == dict.fromkeys(sorted(draw_names()), 16)
    crops, targets = gather(config, SpatialTransformer("crop", 32, 32, 0.1), draws, CPU, QUIET, faces_only=True)
    second = torch.tensor([20.0 * (draw.subject.name == "duo_right") for draw in draws for _ in draw.rows])
    frame = (crops[..., 8:-8].float().mean((1, 2, 3)) - second - 30) / 4  # the rim shows the other half
    torch.testing.assert_close(targets[:, 0], (frame - FRAMES / 2) / FRAMES, atol=0.7 / FRAMES, rtol=0)
    torch.testing.assert_close(targets[:, 1], -targets[:, 0])
    for draw in draws:
        assert not set(draw.rows.tolist()) & set(UNKNOWN)
        assert draw.rows[0] == 0
        assert draw.rows[-1] == (39 if draw.subject.boxes else FRAMES - 1), "no box, no training frame"


def draw_names() -> list[str]:
    return [name for name, split in SPLITS.items() if split == "Train_Set"]


def test_the_crop_without_jitter_is_the_crop_that_is_cached(data: Path, work: Work) -> None:
    config, catalog = settings("stn.localiser=box"), find_catalog(data)
    subjects = [subject for subject in accepted_subjects(work, catalog) if subject.name == "a"]
    draws, _ = sample_frames(config, catalog, subjects, work, "train", 5)
    stn = SpatialTransformer("crop", 32, 32, 0.1)
    crops, _ = gather(config, stn, draws, CPU, QUIET, faces_only=True)
    with FrameShard(draws[0].shard) as shard:
        frames = shard.frames(draws[0].rows)
    theta = torch.tensor([[0.5, 0, 0], [0, 0.5, 0]]).expand(5, 2, 3)
    margin = crops.shape[-1] / 32 - 1
    torch.testing.assert_close(crop_centre(crops, 32, surround=margin), stn.sample(frames, theta), atol=0.6, rtol=0)


def test_adapt_writes_weights_for_caching_and_prints_their_accuracy(
    adapted: StageReport, data: Path, work: Work
) -> None:
    assert adapted.made == ("adapted.safetensors",)
    assert adapted.facts["frames"] == 16
    assert {"ccc_valence", "ccc_arousal", "ccc_mean", "best_epoch"} <= adapted.facts.keys()
    plan = plan_encoder(settings(), work)
    assert plan.backbone == work.weights("adapted")
    assert not plan.warnings
    assert read_metadata(work.weights("adapted"))["report"]["ccc_mean"] == adapted.facts["ccc_mean"]
    assert adapt(settings(), data, work, QUIET).kept == ("adapted.safetensors",)


def test_another_video_label_or_setting_adapts_again(
    adapted: StageReport, data: Path, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise RuntimeError("trains")

    monkeypatch.setattr("affect.pipeline.stages.adapt._train", never)
    assert adapt(settings("train.epochs=5"), data, work, QUIET).kept
    for option in ("adapt.dropout=0.1", "stn.margin=0.2", "runtime.seed=1"):
        with pytest.raises(RuntimeError, match="trains"):
            adapt(settings(option), data, work, QUIET)
    path = data / "annotations" / "VA_Set" / "Validation_Set" / "v.txt"
    text = path.read_text()
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    rows[5] = ["0.9", "0.9"]
    path.write_text("\n".join(",".join(row) for row in rows) + "\n")
    with pytest.raises(RuntimeError, match="trains"):
        adapt(settings(), data, work, QUIET)
    path.write_text(text)
    assert adapt(settings(), data, work, QUIET).kept


def test_with_no_epochs_there_is_nothing_to_do(data: Path, tmp_path: Path) -> None:
    report = adapt(settings("adapt.epochs=0"), data, Work(tmp_path), QUIET)
    assert not report.made
    assert not report.failed
    assert not list(tmp_path.iterdir())


def test_the_report_lists_what_is_missing(data: Path, work: Work, tmp_path: Path) -> None:
    bare = Work(tmp_path)
    audit(settings(), data, bare, QUIET)
    with pytest.raises(MissingStageError, match="affect extract-frames"):
        adapt(settings(), data, bare, QUIET)
    catalog = find_catalog(data)
    only = [subject for subject in accepted_subjects(work, catalog) if subject.split == "train"]
    with pytest.raises(InputError, match="validation"):
        sample_frames(settings(), catalog, only, work, "validation", 10)


def test_frames_of_other_settings_are_not_used(data: Path, work: Work) -> None:
    catalog = find_catalog(data)
    with pytest.raises(InputError, match="train"):
        sample_frames(settings("frames.size=96"), catalog, accepted_subjects(work, catalog), work, "train", 10)
