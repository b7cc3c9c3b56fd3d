"""A hundredth of the torture of benchmarks/torture: its figures are what docs/reliability.md says."""

from pathlib import Path

import pytest
from affect.benchmarks.torture import flips, texts, videos
from affect.benchmarks.torture.__main__ import faults


def test_nonsense_in_tables_is_read_right_or_refused(tmp_path: Path) -> None:
    told: list[str] = []
    figures = texts.run(tmp_path, 600, 1, told.append)
    assert not told
    assert faults({"texts": figures}) == []
    assert figures["read right"] > 50
    assert figures["refused"] > 200


def test_every_flipped_bit_is_found_and_none_is_used(tmp_path: Path) -> None:
    told: list[str] = []
    figures = flips.run(tmp_path, 60, 1, told.append)
    assert not told
    assert faults({"flips": figures}) == []
    assert figures["verify: found"] == 60


@pytest.mark.slow
def test_damaged_videos_shift_no_number(tmp_path: Path) -> None:
    figures = videos.run(tmp_path, 12, 1, lambda _: None, demo=None, peers=False)
    assert faults({"videos": figures}) == []
    assert figures["extracted"] + figures["refused"] == 12
