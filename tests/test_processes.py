"""Closed descriptors, forks, threads and busy cores: affect gives the same values, or an error with a remedy."""

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from affect.pipeline.ingest.video.decode import decode
from affect.tests.child import command, output
from affect.tests.programs.decoding import (
    decode_twice,
    decode_with_few_descriptors,
    hold_decoder_and_fork,
    load_model_in_forks,
    share_decoder_with_fork,
    use_model_in_forks,
)  # fmt: skip
from affect.tests.programs.memory import sleeps_of_threads, spin_count
from affect.tests.waiting import wait_for_exit, wait_until

CLOSED = [closed for n in range(4) for closed in itertools.combinations(range(3), n)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_run: Callable[..., Path]) -> Path:
    return tiny_run(tmp_path_factory.mktemp("run"), "predict.face_threshold=0")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory, write_video: Callable[[Path, int], Path]) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "video.mp4", 40)


def python(function: Callable[..., None], *arguments: object, **environment: str) -> str:
    """Runs a function without the settings of OpenMP that these tests were started with, but for those given."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    return output(function, *arguments, environment=own | environment)


def without(closed: tuple[int, ...], *words: object) -> int:
    """The exit code of a command that begins with these descriptors closed."""
    shell = "exec " + " ".join(['"$@"', *(f"{number}{'<' if number == 0 else '>'}&-" for number in closed)])
    return subprocess.run(["sh", "-c", shell, "sh", *map(str, words)], capture_output=True).returncode


@pytest.mark.parametrize("closed", CLOSED, ids=str)
def test_python_reads_the_same_pixels_whatever_descriptors_are_closed(
    video: Path, tmp_path: Path, closed: tuple[int, ...]
) -> None:
    with decode(video, 64, batch=7) as decoding:
        means = [float(picture.mean()) for batch in decoding for picture in batch.pixels]
    out = tmp_path / "means.json"
    assert without(closed, *command(decode_twice, video, out)) == 0
    assert [json.loads(line) for line in out.read_text().splitlines()] == [means, means]
    assert min(means) > 10


@pytest.mark.parametrize("closed", [(1, 2), (0, 1, 2)], ids=str)
def test_the_command_writes_the_same_table_whatever_descriptors_are_closed(
    run: Path, video: Path, tmp_path: Path, closed: tuple[int, ...]
) -> None:
    tables = []
    for name, handles in (("open", ()), ("closed", closed)):
        words = ["predict", video, "--model", run, "--out", tmp_path / name]
        assert without(handles, sys.executable, "-m", "affect", *words) == 0
        tables.append((tmp_path / name / "video.csv").read_bytes())
    assert tables[0] == tables[1]


def test_workers_write_the_same_shards_when_all_descriptors_are_closed(
    write_data: Callable[[Path], Path], tmp_path: Path
) -> None:
    from affect.pipeline.storage.shard import FrameShard

    data = write_data(tmp_path / "data")
    for name, handles in (("open", ()), ("closed", (0, 1, 2))):
        for stage in ("audit", "extract-frames"):
            more = ("--set", "frames.size=64", *(("--workers", 2) if stage == "extract-frames" else ()))
            words = [stage, "--data", data, "--work", tmp_path / name, *more]
            assert without(handles, sys.executable, "-m", "affect", *words) == 0
    for subject in "abcv":
        with FrameShard(tmp_path / "open" / "frames" / f"{subject}.h5") as usual:
            expected = usual.frames(np.arange(len(usual.read("index"))))
        with FrameShard(tmp_path / "closed" / "frames" / f"{subject}.h5") as shard:
            np.testing.assert_array_equal(shard.frames(np.arange(len(shard.read("index")))), expected)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core has no threads that wait")
@pytest.mark.parametrize("first", ["affect", "torch"])
def test_waiting_threads_do_not_use_a_core(run: Path, first: str) -> None:
    """They sleep, whichever of affect and torch is imported first."""
    threads, sleeps = map(int, python(sleeps_of_threads, run, first).split())
    assert threads > 1
    assert sleeps > 150


@pytest.mark.parametrize("own", [{}, {"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"}], ids=str)
def test_openmp_settings_of_the_user_are_kept(own: dict[str, str]) -> None:
    expected = own.get("GOMP_SPINCOUNT", "None" if own else "1000")
    assert python(spin_count, **own) == f"{expected}\n"


def test_a_model_used_after_a_fork_raises_an_error_with_a_remedy(run: Path, video: Path) -> None:
    *lines, goes_on = python(use_model_in_forks, run, video).splitlines()
    assert len(lines) == 7
    for line in lines:
        assert "Call affect.load in each process after the fork" in line or "Open it in the process" in line
    assert goes_on == "True True"


def test_a_model_may_be_loaded_after_a_fork(run: Path, video: Path) -> None:
    lines = python(load_model_in_forks, run, video).splitlines()
    assert len(lines) == 3
    assert len(set(lines)) == 1


def test_a_fork_neither_uses_nor_ends_the_decoder_of_its_parent(video: Path) -> None:
    first, error, own, rest = python(share_decoder_with_fork, video).splitlines()
    assert json.loads(first) == [0, 1, 2, 3]
    assert "Open it in the process that reads it" in error
    assert own == "40"
    assert json.loads(rest) == list(range(4, 40))


def ended(thread: int) -> bool:
    """Whether the system's thread is gone, which is shortly after it can be joined."""
    return not Path(f"/proc/self/task/{thread}").exists()


def test_a_decoder_survives_the_thread_that_started_it(video: Path) -> None:
    begun = []

    def begin() -> None:
        begun.extend((decode(video, 64, batch=4), threading.get_native_id()))

    thread = threading.Thread(target=begin)
    thread.start()
    thread.join()
    decoding, number = begun
    wait_until(lambda: ended(number))
    with decoding:
        assert [number for batch in decoding for number in batch.index.tolist()] == list(range(40))


@pytest.mark.parametrize("memory", [0, 1 << 40], ids=["paused", "at work"])
def test_a_decoder_ends_with_its_parent_even_if_a_fork_survives(video: Path, memory: int) -> None:
    words = command(hold_decoder_and_fork, video, memory)
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        fork, decoder = (int(word) for word in parent.stdout.readline().split())
        parent.kill()
        wait_for_exit(decoder)
        assert Path(f"/proc/{fork}").exists()
        parent.stdin.close()
        wait_for_exit(fork)


@pytest.mark.parametrize("free", [0, 1, 2, 4])
def test_too_few_free_descriptors_are_an_error_and_none_leaks(video: Path, free: int) -> None:
    *errors, frames = python(decode_with_few_descriptors, video, free).splitlines()
    assert len(errors) == 2
    assert all("Too many open files" in error and "ulimit -n" in error for error in errors)
    assert frames == "40"
