"""End-to-end training with the commands: from a data folder to a model that is evaluated on raw frames."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from affect.configs.schema import Config, dump
from affect.pipeline.errors import MissingStageError
from affect.pipeline.progress import Reporter
from affect.pipeline.records import Work
from affect.pipeline.stages.audit import audit
from affect.pipeline.stages.evaluate import evaluate
from affect.pipeline.stages.pretrain_stn import pretrain_stn
from affect.pipeline.stages.train import train

QUIET = Reporter(quiet=True)


def settings(tiny_config: Config, localiser: str = "none") -> Config:
    changes = {"stn": {"localiser": localiser}, "backbone": {"weights": "scratch"}, "adapt": {"epochs": 0}}
    changes |= {"clip": {"hop": 16}, "train": {"epochs": 1}, "runtime": {"device": "cpu", "precision": "fp32"}}
    merged = {
        name: {**value, **changes.get(name, {})} if isinstance(value, dict) else value
        for name, value in tiny_config.model_dump().items()
    }
    return Config.model_validate(merged)


@pytest.fixture(scope="module")
def work(demo_frames: Path, tmp_path_factory: pytest.TempPathFactory) -> Work:
    return Work(shutil.copytree(demo_frames, tmp_path_factory.mktemp("end_to_end") / "work"))


def test_evaluation_of_an_end_to_end_model_equals_its_training_metrics(
    demo_data: Path, work: Work, tiny_config: Config, full_resnet: None
) -> None:
    config = settings(tiny_config)
    assert train(config, demo_data, work, QUIET, run="raw", end_to_end=True).made == ("raw",)
    run = json.loads((work.run("raw") / "run.json").read_text())
    report = evaluate(config, demo_data, work, QUIET, run="raw")
    # The model is hardly trained and its values almost constant, so rounding changes the CCC in the fifth place.
    assert report.facts["ccc_mean"] == pytest.approx(run["metrics"]["validation_ccc_mean"], abs=1e-4)
    assert sorted(report.facts["per_subject"]) == sorted(run["validation"])
    assert train(config, demo_data, work, QUIET, run="raw", end_to_end=True).kept == ("raw",)
    assert evaluate(config, demo_data, work, QUIET, run="raw").kept == ("validation",)


def test_subjects_without_boxes_are_refused_and_the_others_used(
    demo_data: Path, work: Work, tiny_config: Config, tmp_path: Path
) -> None:
    config = settings(tiny_config, "box")
    demo_data = Path(shutil.copytree(demo_data, tmp_path / "tree", ignore=shutil.ignore_patterns("2_left.csv")))
    audit(tiny_config, demo_data, work, QUIET)
    report = train(config, demo_data, work, QUIET, run="boxed", end_to_end=True)
    refused = {problem.name for problem in report.failed}
    run = json.loads((work.run("boxed") / "run.json").read_text())
    assert refused == {"2_left"}
    assert not refused & {*run["train"], *run["validation"]}
    assert run["metrics"]["validation_iou"] == pytest.approx(1)
    again = train(config, demo_data, work, QUIET, run="boxed", end_to_end=True)
    assert (again.kept, again.failed) == (("boxed",), report.failed)


def test_without_frames_the_remedy_names_the_command(
    demo_data: Path, work: Work, tiny_config: Config, tmp_path: Path
) -> None:
    shutil.copy(work.audit, tmp_path)
    with pytest.raises(MissingStageError, match="extract-frames"):
        train(settings(tiny_config), demo_data, Work(tmp_path), QUIET, end_to_end=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_torchrun_trains_end_to_end_as_one_process_does(demo_data: Path, work: Work, tiny_config: Config) -> None:
    """The whole command, with the STN that comes with affect, pulled towards the boxes."""
    config = settings(tiny_config, "stn")
    plain = {"pretrain_stn": {"epochs": 0}, "head": {"dropout": 0.0}, "train": {"ema": 0.0, "batch_end_to_end": 2}}
    config = Config.model_validate(
        {
            name: {**value, **plain.get(name, {})} if isinstance(value, dict) else value
            for name, value in config.model_dump().items()
        }
    )
    pretrain_stn(config, demo_data, work, QUIET)
    train(config, demo_data, work, QUIET, run="one", end_to_end=True)
    work.config.write_text(dump(config), encoding="utf-8")
    words = ["train", "--data", str(demo_data), "--work", str(work.root), "--run", "two", "--end-to-end", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "--", "affect", *words],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, two = (json.loads((work.run(name) / "run.json").read_text()) for name in ("one", "two"))
    assert (one["environment"]["processes"], two["environment"]["processes"]) == (1, 2)
    assert {"validation_iou", "validation_ccc_mean"} <= one["metrics"].keys()
    for name, figure in one["metrics"].items():
        if "second" not in name:
            assert two["metrics"][name] == pytest.approx(figure, rel=2e-2, abs=2e-3), name
