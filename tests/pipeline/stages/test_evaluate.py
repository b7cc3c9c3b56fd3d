"""The figures of a run are those of its predictions over all valid frames, however they were come by."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from affect.configs.schema import Config, load
from affect.pipeline.errors import MissingStageError
from affect.pipeline.features.encoder import plan_encoder
from affect.pipeline.inference.tables import INTERVAL_COLUMNS
from affect.pipeline.learning.metrics import pooled
from affect.pipeline.learning.model_file import add_calibration, read_calibration
from affect.pipeline.progress import Reporter
from affect.pipeline.records import Work
from affect.pipeline.stages.evaluate import COLUMNS, evaluate
from affect.pipeline.stages.train import train
from affect.pipeline.storage.shard import FEATURES
from affect.pipeline.storage.shard_writer import ShardWriter

QUIET = Reporter(quiet=True)
NOWHERE = Path("nowhere")
SETTINGS = (
    "stn.localiser=none", "stn.crop=32", "stn.view=32", "backbone.weights=scratch", "adapt.epochs=0", "clip.length=16",
    "clip.hop=8", "head.project=8", "head.hidden=8", "head.dense=[8]", "train.epochs=2", "runtime.device=cpu",
    "runtime.precision=fp32",
)  # fmt: skip
SUBJECTS = {"a": ("train", 60), "b": ("train", 40), "v": ("validation", 50), "w": ("validation", 9), "t": ("test", 30)}


def settings(*more: str) -> Config:
    return load("demo", [*SETTINGS, *more])


def write(work: Work, config: Config, name: str, split: str, n: int, *, share: float = 0.8) -> None:
    rng = np.random.default_rng(n)
    index = np.delete(np.arange(n + 1), 4)
    attributes = {"split": split, "video": name, "encoder": plan_encoder(config, work).digest}
    with ShardWriter(work.features(name), FEATURES, f"{name} {share}", {}, name, attributes) as writer:
        writer.append(
            feature=rng.random((n, 2048)).astype(np.float16), index=index, pts=index / 30, valid=rng.random(n) < share,
            target=rng.uniform(-1, 1, (n, 2)).astype(np.float32),
        )  # fmt: skip


@pytest.fixture
def work(tmp_path: Path) -> Work:
    work, config = Work(tmp_path), settings()
    for name, (split, n) in SUBJECTS.items():
        write(work, config, name, split, n, share=0.0 if split == "test" else 0.8)
    train(config, NOWHERE, work, QUIET)
    return work


def test_a_run_without_intervals_gets_them_and_the_split_has_their_coverage(work: Work) -> None:
    model = work.run("default") / "model.safetensors"
    known = read_calibration(model)
    assert known["offline"].people == 2
    add_calibration(model, {})
    plain = evaluate(settings(), NOWHERE, work, QUIET)
    assert "coverage_valence" not in plain.facts
    assert tuple(rows_of(work)[0]) == COLUMNS
    config = settings("predict.level=0.6")
    found = evaluate(config, NOWHERE, work, QUIET, calibrate=True)
    assert found.made
    assert np.array_equal(read_calibration(model)["offline"].score, known["offline"].score)
    rows = [row for row in rows_of(work) if row["valid"] == "1"]
    inside = [float(row["valence_low"]) <= float(row["valence_true"]) <= float(row["valence_high"]) for row in rows]
    assert found.facts["coverage_valence"] == pytest.approx(np.mean(inside), abs=0.01)
    assert found.facts["level"] == 0.6
    widths = [float(row["arousal_high"]) - float(row["arousal_low"]) for row in rows]
    assert found.facts["width_arousal"] == pytest.approx(np.mean(widths), abs=1e-5)
    assert found.facts["per_subject"].keys() == {"v", "w"}
    assert evaluate(config, NOWHERE, work, QUIET).kept


def rows_of(work: Work, split: str = "validation") -> list[dict[str, str]]:
    with (work.run("default") / f"predictions-{split}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_figures_are_those_of_the_table_and_of_the_best_epoch(work: Work) -> None:
    report = evaluate(settings(), NOWHERE, work, QUIET)
    rows = rows_of(work)
    assert tuple(rows[0]) == (*COLUMNS, *INTERVAL_COLUMNS)
    assert [(row["subject"], int(row["frame"])) for row in rows] == [
        (name, frame) for name in ("v", "w") for frame in range(SUBJECTS[name][1] + 1) if frame != 4
    ]
    valid = np.array([row["valid"] == "1" for row in rows])
    assert all((row["valence_true"] == "") == (row["valid"] == "0") for row in rows)
    own = np.array([[float(row["valence"]), float(row["arousal"])] for row in rows])
    true = np.array([[float(row["valence_true"] or 0), float(row["arousal_true"] or 0)] for row in rows])
    again = pooled(own, true, valid)
    assert report.facts["frames"] == again["frames"] == valid.sum()
    assert report.facts["ccc_mean"] == pytest.approx(again["ccc_mean"], abs=1e-3)
    run = json.loads((work.run("default") / "run.json").read_text())
    assert report.facts["ccc_mean"] == pytest.approx(run["smoothing"]["ccc_mean"], abs=1e-6)
    assert run["smoothing"]["ccc_mean_before"] == pytest.approx(run["metrics"]["validation_ccc_mean"], abs=1e-6)
    assert run["smoothing"]["ccc_mean"] >= run["smoothing"]["ccc_mean_before"]
    assert report.facts["per_subject"].keys() == {"v", "w"}
    written = json.loads((work.run("default") / "evaluation-validation.json").read_text())
    assert report.facts.items() <= written.items()


def test_a_second_evaluation_is_kept_until_something_changes(work: Work) -> None:
    first = evaluate(settings(), NOWHERE, work, QUIET)
    second = evaluate(settings(), NOWHERE, work, QUIET)
    assert (first.made, second.kept) == (("validation",), ("validation",))
    assert second.facts == first.facts
    assert evaluate(settings("clip.hop=16"), NOWHERE, work, QUIET).made
    (work.run("default") / "predictions-validation.csv").unlink()
    assert evaluate(settings("clip.hop=16"), NOWHERE, work, QUIET).made
    train(settings("train.epochs=1"), NOWHERE, work, QUIET)
    assert evaluate(settings("clip.hop=16"), NOWHERE, work, QUIET).made


def test_the_training_split_can_be_evaluated_too(work: Work) -> None:
    assert evaluate(settings(), NOWHERE, work, QUIET, split="train").facts["subjects"] == 2


def test_a_split_without_labels_is_refused(work: Work) -> None:
    with pytest.raises(MissingStageError, match="no frame of the split is annotated"):
        evaluate(settings(), NOWHERE, work, QUIET, split="test")


def test_the_substitutes_of_a_missing_validation_split_are_evaluated(tmp_path: Path) -> None:
    work, config = Work(tmp_path), settings()
    for name in "abcdef":
        write(work, config, name, "train", 20)
    train(config, NOWHERE, work, QUIET)
    assert evaluate(config, NOWHERE, work, QUIET).facts["per_subject"].keys() == {"f"}


def test_a_run_that_is_not_there_is_named_with_the_command_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(MissingStageError, match="affect train"):
        evaluate(settings(), NOWHERE, Work(tmp_path), QUIET)


def values_of(work: Work, run: str) -> list[tuple[str, str, float]]:
    with (work.run(run) / "predictions-validation.csv").open(newline="") as file:
        return [(row["subject"], row["frame"], float(row["valence"])) for row in csv.DictReader(file)]


def test_of_several_runs_each_frame_has_the_mean(work: Work) -> None:
    train(settings("train.learning_rate=0.002"), NOWHERE, work, QUIET, run="other")
    for runs in (["default"], ["other"], ["default", "other"]):
        evaluate(settings(), NOWHERE, work, QUIET, run=runs)
    tables = [values_of(work, run) for run in ("default", "other", "default+other")]
    for first, second, mean in zip(*tables, strict=True):
        assert first[:2] == second[:2] == mean[:2]
        assert mean[2] == pytest.approx((first[2] + second[2]) / 2, abs=2e-6)
    assert evaluate(settings(), NOWHERE, work, QUIET, run=["default", "other"]).kept


def test_a_fold_is_recorded_and_evaluated_on_its_validation_subjects(work: Work) -> None:
    held_out = []
    for which in (1, 2):
        train(settings("train.epochs=1"), NOWHERE, work, QUIET, run=f"fold{which}", fold=f"{which}/2")
        facts = json.loads((work.run(f"fold{which}") / "run.json").read_text())
        assert facts["fold"] == f"{which}/2"
        assert not set(facts["train"]) & set(facts["validation"])
        report = evaluate(settings(), NOWHERE, work, QUIET, run=f"fold{which}")
        assert sorted(report.facts["per_subject"]) == facts["validation"]
        held_out += facts["validation"]
    assert sorted(held_out) == ["a", "b", "v", "w"]
    together = evaluate(settings(), NOWHERE, work, QUIET, run=["fold1", "fold2"])
    assert sorted(together.facts["per_subject"]) == sorted(held_out)
    assert [it[2] for it in values_of(work, "fold1+fold2") if it[0] == held_out[0]] == [
        it[2] for it in values_of(work, "fold1") if it[0] == held_out[0]
    ]
