"""Training from cache: what it learns, what it leaves behind, and what it does when run again or interrupted."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from affect.configs.schema import Config, dump, load
from affect.pipeline.errors import InputError, MissingStageError, WeightsError
from affect.pipeline.features.encoder import plan_encoder
from affect.pipeline.learning.model_file import load_model, read_model_info
from affect.pipeline.progress import Reporter
from affect.pipeline.records import Work
from affect.pipeline.stages.evaluate import evaluate
from affect.pipeline.stages.train import train
from affect.pipeline.storage.shard import FEATURES
from affect.pipeline.storage.shard_writer import ShardWriter
from affect.tests.child import output
from affect.tests.programs.libraries import run_stage

QUIET = Reporter(quiet=True)
WIDTH = 2048
SETTINGS = (
    "stn.localiser=none", "stn.crop=32", "stn.view=32", "backbone.weights=scratch", "adapt.epochs=0", "clip.length=16",
    "clip.hop=8", "head.project=16", "head.hidden=16", "head.dense=[8]", "train.epochs=6", "train.batch=4",
    "train.learning_rate=5e-3", "runtime.device=cpu", "runtime.precision=fp32",
)  # fmt: skip


def settings(*more: str) -> Config:
    return load("demo", [*SETTINGS, *more])


def cache(work: Work, config: Config, subjects: dict[str, str], *, n: int = 120, encoder: str = "") -> None:
    """Feature shards whose targets follow from a few of the features; some frames are lost, some not annotated."""
    for number, (name, split) in enumerate(subjects.items()):
        rng = np.random.default_rng(number)
        hidden = np.cumsum(rng.normal(0, 0.3, (n, 2)), 0)
        hidden -= hidden.mean(0)
        way = np.random.default_rng(99).normal(size=(2, WIDTH))
        feature = np.maximum(hidden @ way + 3 + 0.5 * rng.normal(size=(n, WIDTH)), 0)
        index = np.delete(np.arange(n + 2), [5, 50])
        valid = rng.random(n) < 0.9
        target = np.where(valid[:, None], np.tanh(hidden), 0).astype(np.float32)
        attributes = {
            "split": split, "video": name, "encoder": encoder or plan_encoder(config, work).digest,
            "width": 64, "height": 64,
        }  # fmt: skip
        with ShardWriter(work.features(name), FEATURES, f"print of {name}", {}, name, attributes) as writer:
            writer.append(
                feature=feature.astype(np.float16), theta=np.zeros((n, 2, 3), np.float32),
                presence=np.ones(n, np.float32), index=index, pts=index / 25, target=target, valid=valid,
            )  # fmt: skip


SUBJECTS = {"a": "train", "b": "train", "c": "train", "d": "train", "v": "validation", "w": "validation"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Work, Config]:
    work, config = Work(tmp_path_factory.mktemp("work")), settings("train.epochs=12")
    cache(work, config, SUBJECTS)
    train(config, Path("nowhere"), work, QUIET)
    return work, config


def test_a_head_learns_from_features(trained: tuple[Work, Config]) -> None:
    work, _ = trained
    run = json.loads((work.run("default") / "run.json").read_text())
    assert run["metrics"]["validation_ccc_mean"] > 0.8
    assert run["train"] == ["a", "b", "c", "d"]
    assert run["validation"] == ["v", "w"]


def test_each_epoch_leaves_a_line_with_all_that_the_report_draws(trained: tuple[Work, Config]) -> None:
    work, config = trained
    lines = [json.loads(line) for line in (work.run("default") / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, len(lines) + 1))
    assert len(lines) <= config.train.epochs
    names = {
        "epoch", "train_loss", "validation_loss", "train_mse_valence", "train_mse_arousal", "validation_mse_valence",
        "validation_mse_arousal", "train_ccc_valence", "train_ccc_arousal", "validation_ccc_valence",
        "validation_ccc_arousal", "validation_ccc_mean", "learning_rate", "gradient_norm", "frames_per_second",
        "seconds",
    }  # fmt: skip
    assert all(names <= line.keys() for line in lines)


def test_the_model_file_has_the_network_and_its_settings(trained: tuple[Work, Config]) -> None:
    work, config = trained
    net, info = load_model(work.run("default"))
    assert not net.training
    output = net.head(net.encode(torch.zeros(3, 3, 40, 40, dtype=torch.uint8)).feature[None])
    assert output.frame.shape == (1, 3, 2)
    assert info.config == config
    assert info.encoder == plan_encoder(config, work).digest
    assert not list(work.run("default").glob("*state*"))


def test_a_second_run_keeps_the_model_and_a_changed_setting_does_not(trained: tuple[Work, Config]) -> None:
    work, config = trained
    before = (work.run("default") / "model.safetensors").stat().st_mtime_ns
    report = train(config, Path("nowhere"), work, QUIET)
    assert (report.made, report.kept) == ((), ("default",))
    assert report.facts["validation_ccc_mean"] > 0.8
    assert (work.run("default") / "model.safetensors").stat().st_mtime_ns == before
    report = train(settings("train.epochs=1"), Path("nowhere"), work, QUIET, run="other")
    assert report.made == ("other",)


def test_settings_of_the_other_training_mode_have_no_influence(trained: tuple[Work, Config]) -> None:
    work, config = trained
    changed = config.model_copy(update={"train": config.train.model_copy(update={"box_weight": 7.0})})
    assert train(changed, Path("nowhere"), work, QUIET).kept == ("default",)


def test_the_initial_weights_are_kept_if_no_epoch_is_better(trained: tuple[Work, Config]) -> None:
    work, _ = trained
    diverging = settings("train.epochs=2", "train.learning_rate=50", "train.gradient_clip=0", "train.warmup=0")
    report = train(diverging, Path("nowhere"), work, QUIET, run="ruined", start="default")
    before, kept, last = (
        load_model(work.run(run) / name)[0].head.state_dict()
        for run, name in (
            ("default", "model.safetensors"), ("ruined", "model.safetensors"), ("ruined", "last.safetensors"),
        )
    )  # fmt: skip
    assert (report.facts["best_epoch"], report.facts["epochs"]) == (0, 2)
    assert all(torch.equal(before[name], kept[name]) for name in before)
    assert not all(torch.equal(before[name], last[name]) for name in before)
    assert read_model_info(work.run("ruined") / "last.safetensors").metadata["epoch"] == 2
    assert train(diverging, Path("nowhere"), work, QUIET, run="ruined", start="default").kept == ("ruined",)


@pytest.mark.parametrize("more", [("head.kind=tcn",), ("head.bidirectional=false", "clip.carry=true")])
def test_evaluation_of_other_heads_equals_their_training_metrics(
    trained: tuple[Work, Config], more: tuple[str]
) -> None:
    work, _ = trained
    config = settings("train.epochs=12", "head.blocks=2", "smooth.kind=none", *more)
    train(config, Path("nowhere"), work, QUIET, run="kind")
    expected = json.loads((work.run("kind") / "run.json").read_text())["metrics"]["validation_ccc_mean"]
    assert expected > 0.4
    assert evaluate(config, Path("nowhere"), work, QUIET, run="kind").facts["ccc_mean"] == pytest.approx(
        expected, abs=1e-4
    )


class Impatient(Reporter):
    """Presses Ctrl-C when the third epoch is told of, which is before it is saved."""

    def info(self, text: str) -> None:
        if "epoch 3/4" in text:
            raise KeyboardInterrupt


def test_a_stopped_training_gives_the_same_weights(tmp_path: Path) -> None:
    work, config = Work(tmp_path), settings("train.epochs=4", "train.ema=0.9")
    cache(work, config, SUBJECTS)
    train(config, Path("nowhere"), work, QUIET, run="whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, Path("nowhere"), work, Impatient(), run="stopped")
    assert not (work.run("stopped") / "model.safetensors").exists()
    train(config, Path("nowhere"), work, QUIET, run="stopped")
    whole, stopped = (load_model(work.run(name))[0].state_dict() for name in ("whole", "stopped"))
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)
    lines = [json.loads(line) for line in (work.run("stopped") / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]


def test_without_validation_subjects_the_last_training_ones_take_their_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work, config = Work(tmp_path), settings("train.epochs=1")
    cache(work, config, dict.fromkeys("abcdef", "train"))
    train(config, Path("nowhere"), work, Reporter())
    run = json.loads((work.run("default") / "run.json").read_text())
    assert (run["train"], run["validation"]) == (list("abcde"), ["f"])
    assert "no validation subjects: f of the training split" in capsys.readouterr().err


def test_without_features_the_remedy_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(MissingStageError, match="cache-features"):
        train(settings(), Path("nowhere"), Work(tmp_path), QUIET)


def test_features_of_other_weights_are_not_used(tmp_path: Path) -> None:
    work, config = Work(tmp_path), settings()
    cache(work, config, SUBJECTS, encoder="another")
    with pytest.raises(MissingStageError, match="other weights"):
        train(config, Path("nowhere"), work, QUIET)


def test_a_run_can_start_from_the_head_of_another(trained: tuple[Work, Config]) -> None:
    work, _ = trained
    further = settings("train.epochs=1", "train.learning_rate=1e-9", "train.noise=0")
    train(further, Path("nowhere"), work, QUIET, run="further", start="default")
    first = json.loads((work.run("default") / "run.json").read_text())["metrics"]["validation_ccc_mean"]
    then = json.loads((work.run("further") / "run.json").read_text())["metrics"]["validation_ccc_mean"]
    assert then == pytest.approx(first, abs=1e-4)
    lines = [json.loads(line) for line in (work.run("further") / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1]
    assert lines[0]["validation_ccc_mean"] == pytest.approx(first, abs=1e-6)
    with pytest.raises(InputError, match="neither a run of"):
        train(further, Path("nowhere"), work, QUIET, run="further", start="nobody")
    with pytest.raises(WeightsError, match="does not match head"):
        train(settings("head.hidden=8"), Path("nowhere"), work, QUIET, run="further", start="default")


def test_a_damaged_model_is_trained_again(trained: tuple[Work, Config]) -> None:
    work, _ = trained
    config = settings("train.epochs=1")
    train(config, Path("nowhere"), work, QUIET, run="damaged")
    model = work.run("damaged") / "model.safetensors"
    model.write_bytes(model.read_bytes()[:1000])
    with pytest.raises(WeightsError):
        read_model_info(model)
    assert train(config, Path("nowhere"), work, QUIET, run="damaged").made == ("damaged",)


def test_what_is_up_to_date_is_seen_without_torch(trained: tuple[Work, Config]) -> None:
    work, config = trained
    (work.root / "config.yaml").write_text(dump(config))
    evaluate(config, Path("nowhere"), work, QUIET)
    for stage in ("train", "evaluate"):
        report = json.loads(output(run_stage, stage, work.config, "nowhere", work.root))
        assert report["kept"]
        assert "torch" not in report["libraries"]
