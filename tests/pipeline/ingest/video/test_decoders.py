"""Decoding several videos one after the other, with the same child processes."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from affect.pipeline.errors import VideoError
from affect.pipeline.ingest.video.decode import Decoding, decoded
from affect.pipeline.ingest.video.decoders import FIRST_BATCH, Decoders
from affect.tests.waiting import wait_until

LENGTHS = (40, 7, 90)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, write_video: Callable[[Path, int], Path]) -> list[Path]:
    folder = tmp_path_factory.mktemp("videos")
    return [write_video(folder / f"v{frames}.mp4", frames) for frames in LENGTHS]


def pixels(decoding: Decoding) -> np.ndarray:
    return np.concatenate([batch.pixels for batch in decoding])


def children() -> list[int]:
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True
    )
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "video.decoder_child" in line]


def test_one_process_decodes_all_videos_to_the_same_frames(videos: list[Path]) -> None:
    used: set[int] = set()
    with Decoders(64, batch=32) as decoders:
        for path in videos:
            np.testing.assert_array_equal(decoders.decoded(path, pixels), decoded(path, 64, pixels))
            used.update(children())
    assert len(used) == 1
    assert not children()


def test_the_first_batch_is_small(videos: list[Path]) -> None:
    with Decoders(64, batch=32) as decoders:
        sizes = [decoders.decoded(path, lambda decoding: [len(batch) for batch in decoding]) for path in videos]
    assert sizes == [[FIRST_BATCH, 24], [7], [FIRST_BATCH, 32, 32, 10]]


def test_the_next_video_is_prepared_while_one_is_used(videos: list[Path]) -> None:
    with Decoders(64) as decoders:
        decoders.prepare(videos[0], videos[1])
        wait_until(lambda: len(children()) == 1)
        decoders.decoded(videos[0], lambda decoding: wait_until(lambda: len(children()) == 2))
        assert len(decoders.decoded(videos[1], pixels)) == LENGTHS[1]
        assert len(decoders.decoded(videos[2], pixels)) == LENGTHS[2]
    assert not children()


def test_a_prepared_video_that_is_damaged_fails_when_it_is_used(videos: list[Path], tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(videos[0].read_bytes()[:500])
    with Decoders(64) as decoders:
        for bad in (damaged, tmp_path / "missing.mp4"):
            decoders.prepare(videos[0], bad)
            assert len(decoders.decoded(videos[0], pixels)) == LENGTHS[0]
            with pytest.raises(VideoError, match=bad.name):
                decoders.decoded(bad, pixels)
            assert len(decoders.decoded(videos[1], pixels)) == LENGTHS[1]


def test_an_idle_process_that_was_killed_is_replaced(videos: list[Path]) -> None:
    with Decoders(64) as decoders:
        expected = decoders.decoded(videos[0], pixels)
        for child in children():
            os.kill(child, signal.SIGKILL)
        np.testing.assert_array_equal(decoders.decoded(videos[0], pixels), expected)
