"""Only one run at a time uses a work folder. Others exit with an error that names its process."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from affect.cli import app
from affect.pipeline.errors import WorkError
from affect.pipeline.storage.lock import lock_folder
from affect.tests.child import command
from affect.tests.programs.storage import hold_lock
from typer.testing import CliRunner


def holder(folder: Path, *more: str) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(command(hold_lock, folder, *more), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_second_process_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    with holder(tmp_path) as first:
        for shared in (False, True):
            with (
                pytest.raises(WorkError, match=rf"in use by process {first.pid} on .*hold_lock") as caught,
                lock_folder(tmp_path, shared=shared),
            ):
                pass
            assert caught.value.remedy
        assert first.stdin is not None
        first.stdin.close()
    with lock_folder(tmp_path) as held:
        assert held
    assert not list(tmp_path.iterdir())


def test_the_lock_file_of_a_killed_process_does_not_lock(tmp_path: Path) -> None:
    with holder(tmp_path) as first:
        os.kill(first.pid, signal.SIGKILL)
    assert list(tmp_path.iterdir())
    with lock_folder(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_shared_locks_exclude_only_exclusive_locks(tmp_path: Path) -> None:
    with holder(tmp_path, "shared") as first:
        with lock_folder(tmp_path, shared=True):
            pass
        with pytest.raises(WorkError, match=f"process {os.getpid()}|process {first.pid}"), lock_folder(tmp_path):
            pass
        assert first.stdin is not None
        first.stdin.close()
    assert not list(tmp_path.iterdir())


def test_a_waiting_process_gets_the_lock(tmp_path: Path) -> None:
    waiting = subprocess.Popen(command(hold_lock, tmp_path, "wait"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with lock_folder(tmp_path):
        pass
    assert waiting.communicate()[0] == b"held\n"


@pytest.mark.parametrize(
    "words", ["audit", "extract-frames", "pretrain stn", "adapt", "cache-features", "train", "all"]
)
def test_a_command_that_writes_exits_with_1_if_the_folder_is_locked(words: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with holder(tmp_path) as first:
        arguments = [*words.split(), "--data", str(tmp_path / "data"), "--work", str(tmp_path)]
        result = CliRunner().invoke(app, arguments)
        assert first.stdin is not None
        first.stdin.close()
    assert result.exit_code == 1
    assert f"in use by process {first.pid}" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "config.yaml").exists()


def test_commands_that_only_read_ignore_the_lock(tmp_path: Path) -> None:
    with holder(tmp_path) as first:
        for arguments in (["config", "show"], ["verify"]):
            assert CliRunner().invoke(app, [*arguments, "--work", str(tmp_path)]).exit_code == 0
        assert first.stdin is not None
        first.stdin.close()
