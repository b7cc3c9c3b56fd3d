"""A training that is killed at any moment and started again ends in the weights that it would have had anyway."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from affect.configs.schema import Config
from affect.pipeline.progress import Reporter
from affect.pipeline.records import Work
from affect.pipeline.stages.audit import audit
from affect.pipeline.stages.extract_frames import extract_frames
from affect.tests.child import output
from affect.tests.programs.interrupted import compare_with_uninterrupted

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


def signals(config: Config, work: Work, data: Path, *, end_to_end: bool, kills: int) -> list[int]:
    """Trains twice, the second time with so many kills. Both give the same. Returns how each process ended."""
    printed = output(
        compare_with_uninterrupted, config.model_dump_json(), data, work.root, "yes" if end_to_end else "no", kills
    )
    result = json.loads(printed)
    assert set(result["same"].values()) == {True}, result
    assert not list(work.run("killed").glob("state*"))
    return result["signals"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_training_killed_at_random_moments_gives_the_same_weights(
    cached_work: Work, whole_frame_config: Config
) -> None:
    """At random steps, before random operations on the files of the run, and while the state is written."""
    ended = signals(whole_frame_config, cached_work, Path("nowhere"), end_to_end=False, kills=9)
    assert ended[:3] == [signal.SIGKILL, signal.SIGKILL, signal.SIGXFSZ]
    assert ended[-1] == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_end_to_end_training_killed_at_random_moments_gives_the_same_weights(
    write_data: Callable[[Path], Path], whole_frame_config: Config, tmp_path: Path
) -> None:
    shorter = whole_frame_config.train.model_copy(update={"epochs": 2, "accumulate": 2, "batch_end_to_end": 1})
    config = whole_frame_config.model_copy(update={"train": shorter})
    data, work, reporter = write_data(tmp_path / "data"), Work(tmp_path / "work"), Reporter(quiet=True)
    audit(config, data, work, reporter)
    extract_frames(config, data, work, reporter)
    ended = signals(config, work, data, end_to_end=True, kills=3)
    assert ended == [signal.SIGKILL, signal.SIGKILL, signal.SIGXFSZ, 0]
