"""Closed descriptors, forks, threads and busy cores: affect gives the same values, or an error with a remedy."""

import itertools
import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from affect.pipeline.ingest.video.decode import decode
from affect.tests.waiting import wait_until

CLOSED = [closed for n in range(4) for closed in itertools.combinations(range(3), n)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_run: Callable[..., Path]) -> Path:
    return tiny_run(tmp_path_factory.mktemp("run"), "predict.face_threshold=0")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory, write_video: Callable[[Path, int], Path]) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "video.mp4", 40)


def python(code: str, *arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Runs a program without the settings of OpenMP that these tests were started with, but for those given."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=own | environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def without(closed: tuple[int, ...], *command: object) -> int:
    """The exit code of a command that begins with these descriptors closed."""
    shell = "exec " + " ".join(['"$@"', *(f"{number}{'<' if number == 0 else '>'}&-" for number in closed)])
    return subprocess.run(["sh", "-c", shell, "sh", *map(str, command)], timeout=120, capture_output=True).returncode


DECODE = """
import json, sys
from pathlib import Path
from affect.pipeline.ingest.video.decode import decode

out = Path(sys.argv[2])
for part in range(2):  # the second finds other numbers free
    with decode(Path(sys.argv[1]), 64, batch=7) as decoding:
        means = [float(picture.mean()) for batch in decoding for picture in batch.pixels]
    with out.open("a") as file:
        file.write(json.dumps(means) + "\\n")
"""


@pytest.mark.parametrize("closed", CLOSED, ids=str)
def test_python_reads_the_same_pixels_whatever_descriptors_are_closed(
    video: Path, tmp_path: Path, closed: tuple[int, ...]
) -> None:
    with decode(video, 64, batch=7) as decoding:
        means = [float(picture.mean()) for batch in decoding for picture in batch.pixels]
    out = tmp_path / "means.json"
    assert without(closed, sys.executable, "-c", DECODE, video, out) == 0
    assert [json.loads(line) for line in out.read_text().splitlines()] == [means, means]
    assert min(means) > 10


@pytest.mark.parametrize("closed", [(1, 2), (0, 1, 2)], ids=str)
def test_the_command_writes_the_same_table_whatever_descriptors_are_closed(
    run: Path, video: Path, tmp_path: Path, closed: tuple[int, ...]
) -> None:
    tables = []
    for name, handles in (("open", ()), ("closed", closed)):
        command = [sys.executable, "-m", "affect", "predict", video, "--model", run, "--out", tmp_path / name]
        assert without(handles, *command) == 0
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
            command = [sys.executable, "-m", "affect", stage, "--data", data, "--work", tmp_path / name, *more]
            assert without(handles, *command) == 0
    for subject in "abcv":
        with FrameShard(tmp_path / "open" / "frames" / f"{subject}.h5") as usual:
            expected = usual.frames(np.arange(len(usual.read("index"))))
        with FrameShard(tmp_path / "closed" / "frames" / f"{subject}.h5") as shard:
            np.testing.assert_array_equal(shard.frames(np.arange(len(shard.read("index")))), expected)


SPINNING = """
import sys, threading
from pathlib import Path
for name in sys.argv[2:]:
    __import__(name)
import affect
affect.load(sys.argv[1])
import torch
large = torch.zeros(1 << 20)

def sleeps():
    tasks = [path for path in Path("/proc/self/task").iterdir() if int(path.name) != threading.get_native_id()]
    lines = [line for path in tasks for line in (path / "status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary"))

large.add_(1)
before = sleeps()
for _ in range(200):
    large.add_(1)
    sum(range(30_000))  # in this thread alone: meanwhile the others have nothing to do
print(torch.get_num_threads(), sleeps() - before)
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core has no threads that wait")
@pytest.mark.parametrize("first", ["affect", "torch"])
def test_waiting_threads_do_not_use_a_core(run: Path, first: str) -> None:
    """They sleep, whichever of affect and torch is imported first."""
    threads, sleeps = map(int, python(SPINNING, run, first).stdout.split())
    assert threads > 1
    assert sleeps > 150


@pytest.mark.parametrize("own", [{}, {"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"}], ids=str)
def test_openmp_settings_of_the_user_are_kept(own: dict[str, str]) -> None:
    code = "import os, affect; print(os.environ.get('GOMP_SPINCOUNT'))"
    expected = own.get("GOMP_SPINCOUNT", "None" if own else "1000")
    assert python(code, **own).stdout == f"{expected}\n"


FORKED = """
import multiprocessing, os, sys
import affect
run, video = sys.argv[1:]
model = affect.load(run)
before = model.predict(video)
stream = model.stream(video)
next(stream)
calls = [
    lambda: model.predict(video), lambda: model.predict_people(video), lambda: next(model.stream(video)),
    lambda: next(model.stream([])), lambda: next(stream), lambda: affect.load(run),
]
for call in calls:
    sys.stdout.flush()
    if not os.fork():
        try:
            call()
            print("no error")
        except affect.AffectError as error:
            print(error)
        sys.stdout.flush()
        os._exit(0)
    os.wait()
with multiprocessing.get_context("fork").Pool(1) as pool:
    try:
        pool.apply(model.predict, (video,))
    except affect.AffectError as error:
        print(error)
assert len(list(stream)) == len(before) - 1  # a fork ends nothing of its parent's
assert (model.predict(video).valence == before.valence).all()
"""


def test_a_model_used_after_a_fork_raises_an_error_with_a_remedy(run: Path, video: Path) -> None:
    lines = python(FORKED, run, video).stdout.splitlines()
    assert len(lines) == 7
    for line in lines:
        assert "Call affect.load in each process after the fork" in line or "Open it in the process" in line


FORKED_EARLY = """
import os, sys
import affect
run, video = sys.argv[1:]
for _ in range(2):
    if not os.fork():
        print(affect.load(run).predict(video).valence.tolist(), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
print(affect.load(run).predict(video).valence.tolist())
"""


def test_a_model_may_be_loaded_after_a_fork(run: Path, video: Path) -> None:
    lines = python(FORKED_EARLY, run, video).stdout.splitlines()
    assert len(lines) == 3
    assert len(set(lines)) == 1


def test_a_fork_neither_uses_nor_ends_the_decoder_of_its_parent(video: Path) -> None:
    code = """
import gc, os, sys
from pathlib import Path
from affect.pipeline.errors import AffectError
from affect.pipeline.ingest.video.decode import decode
decoding = decode(Path(sys.argv[1]), 64, batch=4, zero_copy=True)
print(next(decoding).index.tolist(), flush=True)
if not os.fork():
    try:
        next(decoding)
    except AffectError as error:
        print(error, flush=True)
    del decoding
    gc.collect()
    print(sum(len(batch) for batch in decode(Path(sys.argv[1]), 64)), flush=True)
    os._exit(0)
os.wait()
print([number for batch in decoding for number in batch.index.tolist()])
"""
    first, error, own, rest = python(code, video).stdout.splitlines()
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


PARENT = """
import os, sys, threading
from pathlib import Path
from affect.pipeline.ingest.video import decode as module

def begin():
    decoding = module.decode(Path(sys.argv[1]), 1024, batch=4)
    next(decoding)
    begun.append(decoding)

begun = []
module.MEMORY = int(sys.argv[2])
thread = threading.Thread(target=begin)
thread.start()
thread.join()
decoder = begun[0]._child._process.pid
if os.fork():
    os.wait()
print(os.getpid(), decoder, flush=True)  # a fork, that has all the pipes too
sys.stdin.read()
"""


@pytest.mark.parametrize("memory", [0, 1 << 40], ids=["paused", "at work"])
def test_a_decoder_ends_with_its_parent_even_if_a_fork_survives(video: Path, memory: int) -> None:
    command = [sys.executable, "-W", "ignore", "-c", PARENT, str(video), str(memory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        fork, decoder = (os.pidfd_open(int(word)) for word in parent.stdout.readline().split())
        parent.kill()
        assert select.select([decoder], [], [], 30)[0], "the decoder outlived its parent"
        assert not select.select([fork], [], [], 0)[0]
        parent.stdin.close()
        assert select.select([fork], [], [], 30)[0]
    os.close(decoder)
    os.close(fork)


LIMITED = """
import os, resource, sys
from pathlib import Path
from affect.pipeline.errors import AffectError
from affect.pipeline.ingest.video.decode import decode
with decode(Path(sys.argv[1]), 64) as decoding:
    list(decoding)
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + int(sys.argv[2]), 4096))
for _ in range(2):
    try:
        decode(Path(sys.argv[1]), 64)
    except AffectError as error:
        print(error)
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
print(sum(len(batch) for batch in decode(Path(sys.argv[1]), 64)))
"""


@pytest.mark.parametrize("free", [0, 1, 2, 4])
def test_too_few_free_descriptors_are_an_error_and_none_leaks(video: Path, free: int) -> None:
    *errors, frames = python(LIMITED, video, free).stdout.splitlines()
    assert len(errors) == 2
    assert all("Too many open files" in error and "ulimit -n" in error for error in errors)
    assert frames == "40"
