"""A small share of the cases of benchmarks/torture, whose figures are in docs/reliability.md."""

from pathlib import Path

import pytest
from affect.benchmarks.torture import flips, texts, videos
from affect.benchmarks.torture.__main__ import faults


def test_a_fuzzed_table_is_read_correctly_or_refused(tmp_path: Path) -> None:
    messages: list[str] = []
    figures = texts.run(tmp_path, 600, 1, messages.append)
    assert not messages
    assert faults({"texts": figures}) == []
    assert figures["read correctly"] > 50
    assert figures["refused"] > 200


def test_every_flipped_bit_is_detected_and_no_wrong_data_is_read(tmp_path: Path) -> None:
    messages: list[str] = []
    figures = flips.run(tmp_path, 60, 1, messages.append)
    assert not messages
    assert faults({"flips": figures}) == []
    assert figures["verify: found"] == 60


@pytest.mark.slow
def test_damage_in_a_video_shifts_no_frame_number(tmp_path: Path) -> None:
    figures = videos.run(tmp_path, 12, 1, lambda _: None, demo=None, peers=False)
    assert faults({"videos": figures}) == []
    assert figures["extracted"] + figures["refused"] == 12
