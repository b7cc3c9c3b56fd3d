"""A challenge's file has a line for each row of its template, in its order, whatever the run could not see."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from affect.configs.schema import load
from affect.models.affect_net import AffectNet
from affect.models.backbone import scratch
from affect.models.head import HeadSettings, TemporalHead
from affect.models.stn import SpatialTransformer
from affect.pipeline.errors import InputError, MissingStageError
from affect.pipeline.features.encoder import plan_encoder
from affect.pipeline.ingest.template import HEADER, read_template
from affect.pipeline.learning.model_file import NAME, save_model
from affect.pipeline.progress import Reporter
from affect.pipeline.records import Work
from affect.pipeline.stages.audit import audit
from affect.pipeline.stages.cache_features import cache_features
from affect.pipeline.stages.evaluate import evaluate
from affect.pipeline.stages.predict import PredictOptions, predict
from affect.pipeline.stages.submit import submit
from affect.pipeline.storage.shard import FEATURES
from affect.pipeline.storage.shard_writer import ShardWriter
from numpy.typing import NDArray

QUIET = Reporter(quiet=True)
CONFIG = load(
    "demo",
    ["frames.size=32", "stn.view=32", "stn.crop=32", "stn.localiser=none", "clip.length=8", "clip.hop=4",
     "head.project=8", "head.hidden=8", "head.dense=[8]", "runtime.device=cpu", "runtime.precision=fp32"],
)  # fmt: skip
FRAMES = {"cached": [0, 1, 2, 5, 6], "late": [3, 4]}


@pytest.fixture
def work(tmp_path: Path) -> Work:
    work = Work(tmp_path / "work")
    for seed, run in enumerate(("default", "other")):
        torch.manual_seed(seed)
        net = AffectNet(
            SpatialTransformer("crop", 32, 32, 0.1),
            scratch(),
            TemporalHead(2048, HeadSettings(**CONFIG.head.model_dump())),
        )
        with torch.no_grad():
            list(net.head.after.children())[-1].weight.mul_(30)  # pyright: ignore[reportCallIssue]
        config = CONFIG.model_dump(mode="json")
        save_model(work.run(run) / NAME, net, fingerprint=run, encoder="e", config=config)
        (work.run(run) / "run.json").write_text("{}")
    for name, index in FRAMES.items():
        attributes = {"split": "test", "video": name, "encoder": "e"}
        n = len(index)
        with ShardWriter(work.features(name), FEATURES, name, {}, name, attributes) as writer:
            writer.append(
                feature=np.random.default_rng(n).random((n, 2048)).astype(np.float16), index=np.array(index),
                pts=np.array(index) / 30, valid=np.zeros(n, bool), target=np.zeros((n, 2), np.float32),
            )  # fmt: skip
    return work


def template(path: Path, *rows: str) -> Path:
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


def lines(path: Path) -> dict[str, list[float]]:
    rows = path.read_text().splitlines()
    assert rows[0] == HEADER
    return {row.split(",")[0]: [float(it) for it in row.split(",")[1:]] for row in rows[1:]}


def values_of(table: Path) -> NDArray[np.float64]:
    """valence and arousal of each row of a CSV, [n, 2]."""
    rows = csv.DictReader(table.read_text().splitlines())
    return np.array([[float(row["valence"]), float(row["arousal"])] for row in rows])


def run(work: Work, rows: list[str], *runs: str, data: Path | None = None) -> tuple[dict[str, list[float]], object]:
    out = work.root / "out.txt"
    given = template(work.root / "template.txt", *rows)
    report = submit(CONFIG, data or work.root, work, QUIET, template=given, out=out, runs=runs or ("default",))
    assert list(lines(out)) == [row.split(",")[0] for row in rows]
    return lines(out), report


def test_every_row_in_the_templates_order_and_gaps_held(work: Work) -> None:
    rows = [f"cached/{k:05d}.jpg,0,0" for k in (7, 1, 2, 3, 4, 5, 6, 99)] + ["late/00001.jpg,,", "late/00004.jpg,,"]
    found, report = run(work, rows)
    assert found["cached/00004.jpg"] == found["cached/00005.jpg"] == found["cached/00003.jpg"]
    assert found["cached/00099.jpg"] == found["cached/00007.jpg"]
    assert found["late/00001.jpg"] == found["late/00004.jpg"]
    assert found["cached/00001.jpg"] != found["cached/00002.jpg"]
    assert report.facts["held"] == 4  # pyright: ignore[reportAttributeAccessIssue]
    assert report.facts["held_by_subject"] == {"cached": 3, "late": 1}  # pyright: ignore[reportAttributeAccessIssue]


def test_several_runs_are_averaged(work: Work) -> None:
    rows = [f"cached/{k:05d}.jpg" for k in (1, 2, 3)]
    one, other, both = (run(work, rows, *runs)[0] for runs in (("default",), ("other",), ("default", "other")))
    assert one != other
    for row in rows:
        np.testing.assert_allclose(both[row], np.mean([one[row], other[row]], axis=0), atol=2e-6)


def test_a_video_without_features_is_predicted_and_a_missing_one_is_listed(
    work: Work, tmp_path: Path, write_video: Callable[[Path, int], Path]
) -> None:
    data = tmp_path / "data"
    (data / "videos").mkdir(parents=True)
    write_video(data / "videos" / "seen.mp4", 12)
    (data / "VA" / "Train_Set").mkdir(parents=True)
    (data / "VA" / "Train_Set" / "gone.txt").write_text("valence,arousal\n0,0\n")
    rows = ["seen_left/00001.jpg,0,0", "seen_left/00012.jpg,0,0", "nowhere/00001.jpg,0,0"]
    found, report = run(work, rows, data=data)
    assert all(abs(it) <= 1 for row in found.values() for it in row)
    assert found["nowhere/00001.jpg"] == [0, 0]
    assert any(found["seen_left/00001.jpg"])
    assert [it.name for it in report.failed] == ["nowhere"]  # pyright: ignore[reportAttributeAccessIssue]
    assert report.facts["left_out"] == 1  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("clip", "smoothing"),
    [
        ({"carry": False}, {"kind": "gaussian", "width": 5}),
        ({"carry": False}, {"kind": "median", "width": 3}),
        ({"carry": True}, {"kind": "none", "width": 1}),
    ],
    ids=["gaussian", "median", "carry"],
)
def test_submit_evaluate_and_predict_give_the_same_values(
    clip: dict[str, Any], smoothing: dict[str, Any], tmp_path: Path, write_video: Callable[[Path, int], Path]
) -> None:
    """One run, one video, three commands: the smoothing that the model stores and clip.carry count in each."""
    data, work = tmp_path / "data", Work(tmp_path / "work")
    (data / "videos").mkdir(parents=True)
    write_video(data / "videos" / "seen.mp4", 40)
    (data / "VA" / "Validation_Set").mkdir(parents=True)
    (data / "VA" / "Validation_Set" / "seen.txt").write_text("valence,arousal\n" + "0.5,0.1\n0.1,0.2\n" * 20)
    settings = CONFIG.model_copy(
        update={
            "head": CONFIG.head.model_copy(update={"bidirectional": False}),
            "clip": CONFIG.clip.model_copy(update=clip),
            "backbone": CONFIG.backbone.model_copy(update={"weights": "scratch"}),
            "adapt": CONFIG.adapt.model_copy(update={"epochs": 0}),
            "runtime": CONFIG.runtime.model_copy(update={"workers": 0}),
        }
    )
    audit(settings, data, work, QUIET)
    cache_features(settings, data, work, QUIET)
    torch.manual_seed(0)
    stn, head = SpatialTransformer("crop", 32, 32, 0.1), TemporalHead(2048, HeadSettings(**settings.head.model_dump()))
    net = AffectNet(stn, scratch(), head)
    with torch.no_grad():
        list(net.head.after.children())[-1].weight.mul_(30)  # pyright: ignore[reportCallIssue]
    folder, encoder = work.run("default"), plan_encoder(settings, work).digest
    config = settings.model_dump(mode="json")
    save_model(folder / NAME, net, fingerprint="f", encoder=encoder, config=config, smoothing=smoothing)
    (folder / "run.json").write_text("{}")

    evaluate(settings, data, work, QUIET)
    evaluated = values_of(folder / "predictions-validation.csv")
    everything = settings.model_copy(update={"predict": settings.predict.model_copy(update={"face_threshold": 0.0})})
    predict(everything, [data / "videos" / "seen.mp4"], folder, tmp_path / "out", QUIET, PredictOptions(plot=False))
    predicted = values_of(tmp_path / "out" / "seen.csv")
    given = template(tmp_path / "template.txt", *(f"seen/{k:05d}.jpg" for k in range(1, 41)))
    submit(settings, data, work, QUIET, template=given, out=tmp_path / "cached.txt")
    work.features("seen").unlink()
    submit(settings, data, work, QUIET, template=given, out=tmp_path / "video.txt")
    assert np.ptp(evaluated, axis=0).min() > 0.01
    for name in ("cached", "video"):
        values = np.array(list(lines(tmp_path / f"{name}.txt").values()))
        tolerance = 2e-6 if name == "cached" else 5e-3  # cached features are float16
        np.testing.assert_allclose(values, evaluated, atol=tolerance)
    np.testing.assert_allclose(predicted, evaluated, atol=5e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("valence,arousal\na/00001.jpg,0,0\n", "line 1"),
        (f"{HEADER}\n", "no rows"),
        (f"{HEADER}\na/00001.jpg,0,0\na/zzz.jpg,0,0\n", "line 3"),
        (f"{HEADER}\na/00000.jpg,0,0\n", "line 2"),
        (f"{HEADER}\na/00001.jpg,0,0,0\n", "line 2 has 4 values"),
        (f"{HEADER}\na/00001.jpg,0,0\n\na/00002.jpg,0,0\n", "line 3"),
        (f"{HEADER}\na/00001.jpg,0,0\na/1.jpg,0,0\n", "line 3 repeats the frame of line 2"),
    ],
)
def test_a_malformed_template_is_refused_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "template.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        read_template(tmp_path / "template.txt")


def test_an_unknown_run_is_an_error_before_any_work(work: Work, tmp_path: Path) -> None:
    given = template(tmp_path / "t.txt", "cached/00001.jpg")
    with pytest.raises(MissingStageError, match="nope"):
        submit(CONFIG, tmp_path, work, QUIET, template=given, out=tmp_path / "o.txt", runs=("default", "nope"))
    assert not (tmp_path / "o.txt").exists()
