"""Feature shards: what the network gives for each frame, beside its label, whoever computes it, and only once."""

import csv
import json
import os
import shutil
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from affect.configs.schema import Config, Head, dump, load
from affect.models.affect_net import AffectNet
from affect.models.backbone import Backbone, scratch
from affect.models.head import HeadSettings, TemporalHead
from affect.models.stn import SpatialTransformer
from affect.pipeline.errors import MissingStageError, WeightsError
from affect.pipeline.features.encode import FeatureJob, cache_subject, theta_of_view
from affect.pipeline.features.encoder import BACKBONE_FORMAT, STN_FORMAT, plan_encoder
from affect.pipeline.ingest.boxes import read_boxes
from affect.pipeline.ingest.catalog import find_catalog
from affect.pipeline.progress import Reporter
from affect.pipeline.records import StageReport, Work
from affect.pipeline.stages.audit import audit
from affect.pipeline.stages.cache_features import cache_features
from affect.pipeline.stages.extract_frames import extract_frames
from affect.pipeline.storage.audit_file import accepted_subjects
from affect.pipeline.storage.checkpoint import save_weights
from affect.pipeline.storage.shard import FEATURES, FrameShard, Shard
from affect.tests.child import output
from affect.tests.programs.libraries import run_stage

QUIET = Reporter(quiet=True)


def settings(*more: str) -> Config:
    return load(
        "demo",
        [
            "frames.size=64", "stn.view=32", "stn.crop=32", "adapt.epochs=0", "features.batch=20", "runtime.workers=0",
            "runtime.device=cpu", "runtime.precision=fp32", *more,
        ],
    )  # fmt: skip


@pytest.fixture(scope="module")
def prepared(demo_frames: Path, tmp_path_factory: pytest.TempPathFactory) -> Work:
    """A work folder with frames, an STN that has been nudged to look somewhere, and a backbone."""
    work = Work(shutil.copytree(demo_frames, tmp_path_factory.mktemp("cache") / "work"))
    torch.manual_seed(0)
    stn = SpatialTransformer("crop", 32, 32, 0.1)
    for parameter in stn.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    shape = {"kind": "crop", "view": 32, "crop": 32, "margin": 0.1}
    save_weights(work.weights("stn"), stn.state_dict(), {"format": STN_FORMAT, "fingerprint": "s", "stn": shape})
    backbone = scratch("torchvision", 1)
    metadata = {"format": BACKBONE_FORMAT, "fingerprint": "b", "backbone": backbone.metadata(), "report": {}}
    save_weights(work.weights("backbone"), backbone.state_dict(), metadata)
    return work


@pytest.fixture(scope="module")
def cached_report(demo_data: Path, prepared: Work) -> StageReport:
    return cache_features(settings(), demo_data, prepared, QUIET)


@pytest.fixture
def copy(prepared: Work, cached_report: StageReport, tmp_path: Path) -> Work:
    """The same work folder, to be changed."""
    assert cached_report.made
    shutil.copytree(prepared.root, tmp_path / "work", copy_function=os.link)
    return Work(tmp_path / "work")


def features(work: Work, name: str, what: str = "feature") -> np.ndarray:
    with Shard(work.features(name), FEATURES) as shard:
        return shard.read(what)


def shortest(work: Work, cached_report: StageReport) -> str:
    """The subject with the fewest frames: bfloat16 takes seconds for each dozen on most CPUs."""
    return min(cached_report.made, key=lambda name: len(features(work, name, "index")))


def fewer(work: Work, names: Sequence[str]) -> None:
    """Leaves the cache of these subjects to be computed again."""
    for name in names:
        work.features(name).unlink()


def test_every_accepted_subject_has_its_labels_frame_by_frame(
    demo_data: Path, prepared: Work, cached_report: StageReport
) -> None:
    subjects = accepted_subjects(prepared, find_catalog(demo_data))
    assert cached_report.made == tuple(sorted(subject.name for subject in subjects))
    assert not cached_report.failed
    for subject in subjects:
        with Shard(prepared.features(subject.name), FEATURES) as shard:
            index, target, valid = shard.read("index"), shard.read("target"), shard.read("valid")
            assert shard.attributes["split"] == subject.split
            assert shard.attributes["video"] == subject.video
            assert shard.read("feature").dtype == np.float16
            assert shard.read("feature").shape == (len(index), 2048)
            assert {shard.count(name) for name in shard.names} == {len(index)}
        with FrameShard(prepared.frames(subject.video)) as frames:
            assert np.array_equal(frames.read("index"), index)
            assert np.array_equal(frames.read("pts"), features(prepared, subject.name, "pts"))
        with subject.annotation.open() as file:
            rows = [tuple(map(float, row)) for row in list(csv.reader(file))[1:]]
        for place, number in enumerate(index.tolist()):
            known = number < len(rows) and -5 not in rows[number]
            assert valid[place] == known
            if known:
                assert target[place] == pytest.approx(rows[number], abs=1e-6)


def test_a_feature_is_what_the_whole_network_gives_for_that_frame(
    demo_data: Path, prepared: Work, cached_report: StageReport
) -> None:
    from affect.pipeline.storage.checkpoint import load_weights

    stn = SpatialTransformer("crop", 32, 32, 0.1)
    stn.load_state_dict(load_weights(prepared.weights("stn"))[0])
    head = TemporalHead(2048, HeadSettings(**Head(project=4, hidden=4, dense=()).model_dump()))
    net = AffectNet(stn, scratch("torchvision", 1), head).eval()
    sided = [subject for subject in accepted_subjects(prepared, find_catalog(demo_data)) if subject.side is not None][
        :2
    ]
    for subject in sided:
        with FrameShard(prepared.frames(subject.video)) as shard:
            frames = shard.frames(np.arange(12))
        with torch.inference_mode():
            seen = net.encode(frames, torch.tensor([subject.region]).expand(12, 4))
        expected = seen.feature.numpy()
        got = features(prepared, subject.name)[:12].astype(np.float32)
        assert np.abs(got - expected).max() < 2e-3 * np.abs(expected).max()
        np.testing.assert_allclose(features(prepared, subject.name, "theta")[:12], seen.theta.numpy(), atol=1e-4)
        np.testing.assert_allclose(features(prepared, subject.name, "presence")[:12], seen.presence.numpy(), atol=1e-4)
        assert np.abs(got).max() > 0


def test_the_two_people_of_a_video_get_their_own_crops(
    demo_data: Path, prepared: Work, cached_report: StageReport
) -> None:
    subjects = accepted_subjects(prepared, find_catalog(demo_data))
    pairs = [(a, b) for a in subjects for b in subjects if a.video == b.video and (a.side, b.side) == ("left", "right")]
    assert pairs
    for left, right in pairs:
        across = [features(prepared, subject.name, "theta")[:, 0, 2] for subject in (left, right)]
        assert (across[0] < 0).all()
        assert (across[1] > 0).all()
        assert not np.array_equal(features(prepared, left.name), features(prepared, right.name))


def test_nothing_is_computed_twice_and_finding_that_out_needs_no_torch(
    demo_data: Path, prepared: Work, cached_report: StageReport, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text(dump(settings("train.epochs=3", "features.batch=8", "runtime.workers=2")))
    report = json.loads(output(run_stage, "cache_features", tmp_path / "config.yaml", demo_data, prepared.root))
    assert (len(report["kept"]), report["made"]) == (len(cached_report.made), [])
    assert "torch" not in report["libraries"]


def test_dask_workers_compute_the_same_bits(
    demo_data: Path, prepared: Work, cached_report: StageReport, copy: Work
) -> None:
    names = cached_report.made[:6]
    fewer(copy, names)
    report = cache_features(settings("runtime.workers=2"), demo_data, copy, QUIET)
    assert report.made == names
    for name in names:
        for what in ("feature", "theta", "presence", "target"):
            assert np.array_equal(features(copy, name, what), features(prepared, name, what)), (name, what)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_number_of_threads_changes_nothing(
    demo_data: Path, copy: Work, cached_report: StageReport, precision: str
) -> None:
    """Or a shard would depend on how many workers shared the cores."""
    name = shortest(copy, cached_report)
    config = settings("stn.crop=96", f"runtime.precision={precision}")
    (subject,) = (subject for subject in accepted_subjects(copy, find_catalog(demo_data)) if subject.name == name)
    plan = plan_encoder(config, copy)
    video = find_catalog(demo_data).video(subject.video).path
    item = FeatureJob(subject, video, copy.frames(subject.video), copy.features(name), "x", config, plan)
    before, seen = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert cache_subject(item)
            seen.append([features(copy, name, what) for what in ("feature", "theta", "presence")])
    finally:
        torch.set_num_threads(before)
    for other in seen[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(seen[0], other, strict=True))


@pytest.mark.parametrize(("setting", "gpus", "workers"), [("-1", 3, 3), ("-1", 0, 4), ("2", 3, 2)])
def test_each_gpu_has_a_worker(
    demo_data: Path,
    cached_report: StageReport,
    copy: Work,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    gpus: int,
    workers: int,
) -> None:
    asked: list[int] = []
    monkeypatch.setattr("dask.system.CPU_COUNT", 8)
    monkeypatch.setattr("affect.pipeline.learning.runtime.gpu_count", lambda _: gpus)
    monkeypatch.setattr(
        "affect.pipeline.stages.cache_features.run_tasks", lambda *_, workers, **__: asked.append(workers)
    )
    fewer(copy, cached_report.made[:2])
    cache_features(settings(f"runtime.workers={setting}"), demo_data, copy, QUIET)
    assert asked == [workers]


def test_affect_does_not_assign_the_gpus_of_a_cluster(
    demo_data: Path, cached_report: StageReport, copy: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine that hands out the work may have none."""
    asked: list[tuple[int, str]] = []
    monkeypatch.setattr(
        "affect.pipeline.stages.cache_features.run_tasks",
        lambda *_, workers, scheduler, **__: asked.append((workers, scheduler)),
    )
    fewer(copy, cached_report.made[:2])
    cache_features(
        settings("runtime.device=cuda:7", "runtime.workers=-1"), demo_data, copy, QUIET, scheduler="tcp://there"
    )
    assert asked == [(0, "tcp://there")]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_gives_the_features_of_the_cpu(
    demo_data: Path, prepared: Work, cached_report: StageReport, copy: Work, precision: str
) -> None:
    names = cached_report.made[:2]
    fewer(copy, names)
    cache_features(settings("runtime.device=cuda", f"runtime.precision={precision}"), demo_data, copy, QUIET)
    for name in names:
        ours, theirs = (features(work, name).astype(np.float64) for work in (copy, prepared))
        cosine = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
        assert cosine.min() > 0.999, name
        assert np.array_equal(features(copy, name, "index"), features(prepared, name, "index"))


@pytest.mark.parametrize(("workers", "at_once"), [("0", 3), ("-1", 3), ("1", 1)])
def test_one_subject_uses_all_cores_by_default_with_the_same_bits(
    demo_data: Path,
    prepared: Work,
    cached_report: StageReport,
    copy: Work,
    monkeypatch: pytest.MonkeyPatch,
    workers: str,
    at_once: int,
) -> None:
    monkeypatch.setattr("dask.system.CPU_COUNT", 6)
    together, threads, plain = threading.Barrier(at_once, timeout=60), [], Backbone.features

    def counted(self: Backbone, crop: torch.Tensor) -> torch.Tensor:
        assert torch.get_num_threads() == 2
        threads.append(threading.get_ident())
        if len(threads) <= at_once:
            together.wait()  # until as many are in here
        return plain(self, crop)

    monkeypatch.setattr(Backbone, "features", counted)
    name = cached_report.made[0]
    fewer(copy, [name])
    report = cache_features(settings(f"runtime.workers={workers}"), demo_data, copy, QUIET)
    assert report.made == (name,)
    assert len(set(threads)) == at_once
    for what in ("index", "pts", "feature", "theta", "presence", "target"):
        assert np.array_equal(features(copy, name, what), features(prepared, name, what)), what


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_log_states_the_precision(
    demo_data: Path, cached_report: StageReport, copy: Work, capfd: pytest.CaptureFixture[str], precision: str
) -> None:
    fewer(copy, [shortest(copy, cached_report)])
    cache_features(settings(f"runtime.precision={precision}"), demo_data, copy, Reporter())
    named = {"fp32": "float32", "bf16": "bfloat16"}[precision]
    assert capfd.readouterr().err.count(f"cache-features: {named} on cpu") == 1


def test_damaged_shards_and_changed_labels_are_made_again_and_only_they(
    demo_data: Path, cached_report: StageReport, copy: Work, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(demo_data, data)
    audit(settings(), data, copy, QUIET)
    damaged, relabelled = cached_report.made[0], cached_report.made[-1]
    path = copy.features(damaged)
    half = path.read_bytes()[: path.stat().st_size // 2]
    path.unlink()
    path.write_bytes(half)
    (annotation,) = (subject.annotation for subject in find_catalog(data).subjects if subject.name == relabelled)
    rows = annotation.read_text().splitlines()
    annotation.write_text("\n".join([rows[0], "0.125,0.25", *rows[2:]]) + "\n")
    extract_frames(settings(), data, copy, QUIET)  # copying has changed the videos' times
    report = cache_features(settings(), data, copy, QUIET)
    assert {damaged, relabelled} <= set(report.made)
    assert features(copy, relabelled, "target")[0].tolist() == [0.125, 0.25]


def test_without_extracted_frames_the_video_is_decoded(
    demo_data: Path, prepared: Work, cached_report: StageReport, copy: Work
) -> None:
    subject = accepted_subjects(copy, find_catalog(demo_data))[0]
    copy.frames(subject.video).unlink()
    made = cache_features(settings(), demo_data, copy, QUIET).made
    assert subject.name in made
    with Shard(copy.features(subject.name), FEATURES) as shard:
        assert shard.attributes["source"] == "video"
    assert np.array_equal(features(copy, subject.name, "index"), features(prepared, subject.name, "index"))
    near, far = features(prepared, subject.name).astype(np.float32), features(copy, subject.name).astype(np.float32)
    assert np.abs(near - far).mean() < 0.2 * near.std(), "only JPEG lies between them"


def test_frames_of_another_size_are_not_used(demo_data: Path, copy: Work, cached_report: StageReport) -> None:
    other = settings("frames.size=48")
    name = cached_report.made[0]
    cache_features(other, demo_data, copy, QUIET)
    with Shard(copy.features(name), FEATURES) as shard:
        assert shard.attributes["source"] == "video"


def test_crops_come_from_the_boxes_if_set(demo_data: Path, copy: Work, cached_report: StageReport) -> None:
    report = cache_features(settings("stn.localiser=box"), demo_data, copy, QUIET)
    subjects = {subject.name: subject for subject in accepted_subjects(copy, find_catalog(demo_data))}
    assert {problem.name for problem in report.failed} == {name for name, s in subjects.items() if s.boxes is None}
    for name in report.made:
        boxes = read_boxes(subjects[name].boxes or Path())
        with Shard(copy.features(name), FEATURES) as shard:
            index, theta, presence = (shard.read(what) for what in ("index", "theta", "presence"))
            width, height = shard.attributes["width"], shard.attributes["height"]
        assert np.array_equal(presence > 0, np.isin(index, boxes.frame))
        place = {int(frame): k for k, frame in enumerate(boxes.frame)}
        for k in np.flatnonzero(presence)[::9]:
            x0, _, _, y1 = boxes.corners[place[int(index[k])]]
            assert (theta[k, 0, 2] - theta[k, 0, 0] + 1) / 2 * width == pytest.approx(x0, abs=0.01)
            assert (theta[k, 1, 2] + theta[k, 1, 1] + 1) / 2 * height == pytest.approx(y1, abs=0.01)


def test_extra_views_are_mirrored_and_moved_and_leave_the_plain_one(
    demo_data: Path, prepared: Work, cached_report: StageReport, copy: Work
) -> None:
    report = cache_features(settings("features.views=3"), demo_data, copy, QUIET)
    assert report.made == cached_report.made
    name = cached_report.made[0]
    views = [features(copy, name, what) for what in ("feature", "feature_1", "feature_2")]
    assert np.array_equal(views[0], features(prepared, name))
    assert not np.array_equal(views[0], views[1])
    assert not np.array_equal(views[1], views[2])
    theta = torch.tensor([[[0.4, 0.0, 0.1], [0.0, 0.5, -0.2]]]).expand(3, 2, 3)
    odd, even = (theta_of_view(theta, "a", view, 0) for view in (1, 2))
    assert (odd[:, 0, 0] < 0).all()
    assert (even[:, 0, 0] > 0).all()
    assert torch.equal(odd, theta_of_view(theta, "a", 1, 0))
    assert not torch.equal(odd, theta_of_view(theta, "b", 1, 0))
    assert (odd.abs() - theta.abs()).abs().max() < 0.1


def test_weights_that_are_missing_or_do_not_fit_stop_it_at_once(demo_data: Path, copy: Work) -> None:
    other = settings("stn.view=48")
    with pytest.raises(WeightsError, match=r"stn\.view"):
        cache_features(other, demo_data, copy, QUIET)
    copy.weights("backbone").unlink()
    with pytest.raises(MissingStageError, match="affect pretrain backbone"):
        cache_features(settings(), demo_data, copy, QUIET)


def test_provided_crops_can_replace_the_stn(demo_data: Path, copy: Work, tmp_path: Path) -> None:
    from affect.pipeline.features.crops import configured_boxes, read_crops
    from affect.pipeline.storage.jpeg import encode

    subject = accepted_subjects(copy, find_catalog(demo_data))[0]
    folder = tmp_path / "cropped_aligned" / subject.name
    folder.mkdir(parents=True)
    for number in (1, 2, 5):
        picture = np.full((1, 112, 112, 3), 40 * number, np.uint8)
        (folder / f"{number:05d}.jpg").write_bytes(encode(picture, 95)[0].tobytes())
    places = configured_boxes(
        settings("stn.localiser=aligned"), replace(subject, crops=folder), np.arange(6, dtype=np.int64), 640, 360
    )
    assert places is not None
    assert places.crops is not None
    assert places.presence.tolist() == [1, 1, 0, 0, 1, 0], "crop 00001.jpg is of frame 0"
    pictures = read_crops(places.crops, 32)
    grey = pictures.float().mean((1, 2, 3))
    assert torch.allclose(grey, torch.tensor([40.0, 80, 80, 200, 200, 200]), atol=2)
    stn = SpatialTransformer("crop", 32, 32, 0.1)
    crop = stn.sample(pictures, torch.from_numpy(places.theta))
    assert torch.allclose(crop, pictures.float(), atol=0.01), "the whole picture, no more"


@pytest.mark.parametrize("source", ["frames", "video"])
def test_with_fps_every_frame_keeps_its_row_and_a_dataset_says_which_were_seen(
    demo_data: Path, copy: Work, source: str
) -> None:
    whole = "stn.localiser=none"
    if source == "video":
        for path in copy.frames("").parent.glob("*.h5"):
            path.unlink()
    cache_features(settings(whole), demo_data, copy, QUIET)
    name = max((path.stem for path in copy.features("").parent.glob("*.h5")), key=lambda it: len(features(copy, it)))
    full = {it: features(copy, name, it) for it in ("feature", "index", "pts", "target", "valid", "presence")}
    sampling = settings(whole, "features.fps=8")
    assert cache_features(sampling, demo_data, copy, QUIET).made
    assert not cache_features(sampling, demo_data, copy, QUIET).made
    seen = features(copy, name, "sampled")
    assert seen.dtype == bool
    assert seen[[0, -1]].all()
    assert seen.sum() < len(seen)
    for it in ("index", "pts", "target", "valid"):
        np.testing.assert_array_equal(features(copy, name, it), full[it])
    found = features(copy, name)
    assert found.shape == full["feature"].shape
    assert found.dtype == np.float16
    close(found[seen], full["feature"][seen])
    close(features(copy, name, "presence")[seen], full["presence"][seen])
    assert cache_features(settings(whole), demo_data, copy, QUIET).made


def close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found.astype(np.float32), expected.astype(np.float32), rtol=5e-3, atol=5e-3)
