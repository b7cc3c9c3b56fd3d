"""A search by Optuna: what it leaves, that it goes on, and what it refuses."""

import csv
from pathlib import Path

import numpy as np
import pytest
from affect.configs.schema import Config, load
from affect.configs.search_space import names, read_space
from affect.pipeline.errors import ConfigError, WorkError
from affect.pipeline.features.encoder import plan_encoder
from affect.pipeline.progress import Reporter
from affect.pipeline.records import Work
from affect.pipeline.stages.tune import tune
from affect.pipeline.storage.shard import FEATURES
from affect.pipeline.storage.shard_writer import ShardWriter

QUIET = Reporter(quiet=True)
SPACE = """
train.learning_rate: {low: 1.0e-3, high: 3.0e-2, log: true}
head.hidden: {low: 4, high: 8, step: 4}
head.dense: [[], [8]]
train.loss: [ccc, mse]
"""
SETTINGS = (
    "stn.localiser=none", "stn.crop=32", "stn.view=32", "backbone.weights=scratch", "adapt.epochs=0", "clip.length=16",
    "clip.hop=8", "head.project=8", "head.hidden=8", "train.epochs=2", "runtime.device=cpu", "runtime.precision=fp32",
    "runtime.workers=0",
)  # fmt: skip


@pytest.fixture
def config() -> Config:
    return load("demo", SETTINGS)


@pytest.fixture
def work(tmp_path: Path, config: Config) -> Work:
    work = Work(tmp_path / "work")
    for number, (name, split) in enumerate({"a": "train", "b": "train", "v": "validation"}.items()):
        rng = np.random.default_rng(number)
        hidden = np.cumsum(rng.normal(0, 0.2, (60, 2)), 0)
        feature = hidden @ np.random.default_rng(9).normal(size=(2, 32)) + 3
        attributes = {"split": split, "video": name, "encoder": plan_encoder(config, work).digest}
        with ShardWriter(work.features(name), FEATURES, name, {}, name, attributes) as writer:
            writer.append(
                feature=feature.astype(np.float16), index=np.arange(60), pts=np.arange(60) / 30,
                valid=np.ones(60, bool), target=np.tanh(hidden).astype(np.float32),
            )  # fmt: skip
    return work


def test_a_search_writes_the_best_config_and_can_continue(work: Work, config: Config, tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(SPACE)
    first = tune(config, work, QUIET, space=str(space), name="s", trials=3)
    assert (first.made, first.facts["trials"]) == (("best.yaml",), 3)
    second = tune(config, work, QUIET, space=str(space), name="s", trials=7)
    assert second.facts["trials"] == 7
    assert tune(config, work, QUIET, space=str(space), name="s", trials=7).kept
    folder = work.root / "tune" / "s"
    with (folder / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    scores = [float(row["ccc_mean"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert second.facts["ccc_mean"] == pytest.approx(scores[0])
    best = load(str(folder / "best.yaml"))
    assert best.train.learning_rate == pytest.approx(float(rows[0]["train.learning_rate"]))
    assert best.head.hidden in (4, 8)
    assert best.head.dense in ((), (8,))
    assert best.train.epochs == config.train.epochs
    if second.facts["importance"]:
        assert (folder / "importance.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(WorkError, match="already contains a search with other"):
        tune(load("demo", [*SETTINGS, "train.epochs=3"]), work, QUIET, space=str(space), name="s", trials=8)


def test_a_search_uses_the_workers_of_a_scheduler_whatever_the_local_workers(
    work: Work, config: Config, tmp_path: Path
) -> None:
    from distributed import LocalCluster

    space = tmp_path / "space.yaml"
    space.write_text(SPACE)
    assert config.runtime.workers == 0
    with LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0") as cluster:
        assert isinstance(cluster, LocalCluster)
        report = tune(config, work, QUIET, space=str(space), name="s", trials=2, scheduler=cluster.scheduler_address)
    assert (report.made, report.facts["trials"]) == (("best.yaml",), 2)


@pytest.mark.parametrize("name", names())
def test_every_shipped_space_is_allowed(name: str, tmp_path: Path) -> None:
    base = tmp_path / "base.yaml"
    base.touch()
    assert read_space(name, base)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.epochz: [1, 2]", "Did you mean train.epochs"),
        ("stn.crop: [32, 64]", "no effect"),
        ("train.loss: [ccc, cce]", "train.loss is 'cce'"),
        ("head.dropout: {low: 0.5, high: 1.5}", "head.dropout is 1.5"),
        ("head.dropout: {low: 0.5, high: 0.1}", "low below high"),
        ("head.dropout: {lo: 0.5}", "Expected a list"),
        ("head.dropout: {low: 0.0, high: 0.5, log: true}", "above 0"),
        ("head.dropout: 0.5", "Expected a list"),
        ("- 1", "no settings"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_wrong_space_is_named_with_its_remedy(text: str, message: str, tmp_path: Path) -> None:
    space, base = tmp_path / "mine.yaml", tmp_path / "base.yaml"
    space.write_text(text)
    base.touch()
    with pytest.raises(ConfigError) as caught:
        read_space(str(space), base)
    assert message in str(caught.value)
    assert "mine.yaml" in str(caught.value)
