"""Two runs in one work folder: the second one is told who is there, and a dead one's lock is none."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from affect.cli import app
from affect.pipeline.errors import WorkError
from affect.pipeline.storage.lock import hold
from typer.testing import CliRunner

HOLDER = """
import sys
from pathlib import Path
from affect.pipeline.storage.lock import hold
with hold(Path(sys.argv[1]), shared=len(sys.argv) > 2):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path, *more: str) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), *more], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_the_second_hears_who_the_first_is_and_comes_in_when_it_is_gone(tmp_path: Path) -> None:
    with holder(tmp_path) as first:
        for shared in (False, True):
            with (
                pytest.raises(WorkError, match=rf"in use by process {first.pid} on .*-c") as caught,
                hold(tmp_path, shared=shared),
            ):
                pass
            assert caught.value.remedy
        assert first.stdin is not None
        first.stdin.close()
    with hold(tmp_path) as held:
        assert held
    assert not list(tmp_path.iterdir())


def test_the_lock_of_one_that_was_killed_is_no_lock(tmp_path: Path) -> None:
    with holder(tmp_path) as first:
        os.kill(first.pid, signal.SIGKILL)
    assert list(tmp_path.iterdir())
    with hold(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_those_who_share_are_let_in_together_and_nobody_else(tmp_path: Path) -> None:
    with holder(tmp_path, "shared") as first:
        with hold(tmp_path, shared=True):
            pass
        with pytest.raises(WorkError, match=f"process {os.getpid()}|process {first.pid}"), hold(tmp_path):
            pass
        assert first.stdin is not None
        first.stdin.close()
    assert not list(tmp_path.iterdir())


def test_who_waits_gets_it(tmp_path: Path) -> None:
    waiting = subprocess.Popen(
        [sys.executable, "-c", HOLDER.replace("shared=len(sys.argv) > 2", "wait=True"), str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with hold(tmp_path):
        pass
    assert waiting.communicate(timeout=30)[0] == b"held\n"


@pytest.mark.parametrize(
    "command", ["audit", "extract-frames", "pretrain stn", "adapt", "cache-features", "train", "all"]
)
def test_a_command_that_writes_stops_at_once_with_exit_code_1(command: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with holder(tmp_path) as first:
        arguments = [*command.split(), "--data", str(tmp_path / "data"), "--work", str(tmp_path)]
        result = CliRunner().invoke(app, arguments)
        assert first.stdin is not None
        first.stdin.close()
    assert result.exit_code == 1
    assert f"in use by process {first.pid}" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "config.yaml").exists()


def test_commands_that_only_look_do_not_wait_for_anybody(tmp_path: Path) -> None:
    with holder(tmp_path) as first:
        for arguments in (["config", "show"], ["verify"]):
            assert CliRunner().invoke(app, [*arguments, "--work", str(tmp_path)]).exit_code == 0
        assert first.stdin is not None
        first.stdin.close()
