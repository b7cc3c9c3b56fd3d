"""The command line as a user types it: what it prints, where, and how it exits."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from affect import __version__
from affect.cli import ORDER, app
from affect.configs.schema import Config, load
from typer.testing import CliRunner, Result

STAGES = (
    "audit", "extract-frames", "pretrain stn", "pretrain backbone", "adapt", "cache-features", "train", "evaluate",
    "predict", "report",
)  # fmt: skip


def run(*arguments: object) -> Result:
    """In this process; stdout and stderr apart."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def shell(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    """In a process of its own, as from a shell."""
    command = [sys.executable, "-m", "affect", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env={**os.environ, **environment})


def assert_one_line(result: Result, *said: str) -> None:
    """An error that the user can mend: one line, on stderr, exit code 1."""
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    for text in said:
        assert text in result.stderr


def plain(text: str) -> str:
    """Words only: no frames, no line breaks."""
    return " ".join(re.sub(r"[─-╿]", " ", text).split())


def test_help_lists_the_commands_in_the_order_of_the_road() -> None:
    result = run("--help")
    assert result.exit_code == 0
    found = re.findall(r"^│ (\S+) {2,}\S", result.stdout, flags=re.MULTILINE)
    assert tuple(name for name in found if name in ORDER) == ORDER


@pytest.mark.parametrize("command", [*STAGES, "all", "demo-data", "detect-boxes", "config show", "version"])
def test_every_command_has_an_example(command: str) -> None:
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    assert f"Example: affect {command}" in plain(result.stdout)


def test_version() -> None:
    assert run("version").stdout == f"{__version__}\n"
    assert shell("version").stdout == f"{__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], "Did you mean 'train'"),
        (["pretrain", "stm"], "Did you mean 'stn'"),
        (["train", "--dta", "x"], "--data"),
        (["train"], "Missing option '--data'"),
        (["predict", "a.mp4", "--out", "x"], "Missing option '--model'"),
        (["extract-frames", "--data", ".", "--workers", "many"], "--workers"),
        (["extract-frames", "--data", ".", "--workers", "-2"], "--workers"),
    ],
    ids=str,
)
def test_wrong_usage_names_the_nearest(arguments: list[str], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in plain(result.stderr)
    assert result.stdout == ""


@pytest.mark.parametrize(
    "command", [stage for stage in STAGES if stage not in ("pretrain backbone", "predict", "report")]
)
def test_a_missing_data_folder_is_one_line(command: str, tmp_path: Path) -> None:
    result = run(*command.split(), "--data", tmp_path / "nope", "--work", tmp_path / "work")
    assert_one_line(result, str(tmp_path / "nope"), "does not exist", "demo-data")
    assert not (tmp_path / "work").exists()


def test_a_file_in_the_place_of_the_data_folder_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    assert_one_line(run("audit", "--data", path, "--work", tmp_path / "work"), str(path), "not a folder")


@pytest.mark.parametrize("command", ["audit", "all", "extract-frames"])
def test_an_empty_data_folder_is_one_line(command: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert_one_line(run(command, "--data", tmp_path / "data", "--work", tmp_path / "work"), str(tmp_path / "data"))


@pytest.mark.parametrize("command", ["pretrain stn", "adapt", "cache-features", "train", "evaluate", "report"])
def test_a_missing_work_folder_is_one_line(command: str, tmp_path: Path) -> None:
    data = [] if command == "report" else ["--data", tmp_path]
    result = run(*command.split(), *data, "--work", tmp_path / "nope")
    assert_one_line(result, str(tmp_path / "nope"), "affect audit")
    assert not (tmp_path / "nope").exists()


def test_a_missing_ferplus_is_one_line(tmp_path: Path) -> None:
    result = run("pretrain", "backbone", "--ferplus", tmp_path / "nope", "--work", tmp_path / "work")
    assert_one_line(result, str(tmp_path / "nope"))


def test_a_work_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("audit", "--data", tmp_path, "--work", tmp_path / "file" / "work")
    assert_one_line(result, str(tmp_path / "file" / "work"), "--work")


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--set", "train.epochz=3", "Did you mean train.epochs?"),
        ("--set", "train.epochs=0", "train.epochs is 0"),
        ("--set", "train.epochs", "section.key=value"),
        ("--config", "dmeo", "Did you mean demo?"),
        ("--config", "nope.yaml", "does not exist"),
    ],
)
def test_a_wrong_setting_is_one_line_and_is_not_remembered(option: str, value: str, said: str, tmp_path: Path) -> None:
    work = tmp_path / "work"
    assert_one_line(run("audit", "--data", tmp_path, "--work", work, option, value), said)
    assert not work.exists()


def test_verbose_shows_where_an_error_came_from(tmp_path: Path) -> None:
    result = run("audit", "--data", tmp_path / "nope", "--verbose")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: ")


def test_an_error_is_one_line_in_a_shell_too(tmp_path: Path) -> None:
    done = shell("audit", "--data", tmp_path / "nope", FORCE_COLOR="")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr


def test_config_show_prints_what_load_reads(tmp_path: Path) -> None:
    result = run("config", "show", "--config", "affwild2", "--set", "train.epochs=3", "--work", tmp_path)
    config = Config.model_validate(yaml.safe_load(result.stdout))
    assert config == load("affwild2", ["train.epochs=3"])
    again = run("config", "show", "--config", "affwild2", "--set", "train.epochs=3", "--work", tmp_path, "--json")
    assert Config.model_validate(json.loads(again.stdout)) == config
    assert not list(tmp_path.iterdir())


def test_ctrl_c_exits_130(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "affect", "demo-data", str(tmp_path / "demo"), "--videos", "40", "--workers", "0"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "demo").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGINT)
    _, stderr = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "Traceback" not in stderr
