"""Unusual machines: file systems without locks, unusual paths, locales without UTF-8, missing packages."""

import errno
import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from affect.cli import app
from affect.pipeline.storage.lock import lock_folder
from affect.tests.child import run
from affect.tests.programs.commands import without_packages
from typer.testing import CliRunner

ROOT = Path(__file__).parent.parent


# File systems without locks


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.usefixtures("no_locks")
def test_stages_run_on_a_file_system_without_locks(demo_data: Path, tmp_path: Path) -> None:
    with lock_folder(tmp_path) as held:
        assert not held
    assert not list(tmp_path.iterdir())
    work = tmp_path / "work"
    done = CliRunner().invoke(app, ["audit", "--data", str(demo_data), "--work", str(work), "-v"])
    assert done.exit_code == 3, done.stderr  # the tree holds two subjects that are refused
    assert "the file system has no locks" in done.stderr
    assert {path.name for path in work.iterdir()} == {"audit.json", "config.yaml", "failures.json"}


# Paths in the Makefile


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize("name", ["My Study", "It's (new) & old; #1", "a,b", 'say "x"'])
def test_make_passes_any_path_as_one_argument(name: str, tmp_path: Path) -> None:
    data = tmp_path / name
    (data / "ferplus").mkdir(parents=True)
    words = ["make", "-n", "-C", str(ROOT), "AFFECT=affect-here", f"DATA={data}", f"WORK={name} w"]
    for target, expected in (
        ("all", ["--data", str(data), "--work", f"{name} w", "--ferplus", str(data / "ferplus")]),
        ("predict", [f"{name}.mp4", "--model", f"{name} run", "--out", f"{name} out"]),
    ):
        more = [f"VIDEO={name}.mp4", f"OUT={name} out", f"MODEL={name} run"]
        done = subprocess.run([*words, *more, target], capture_output=True, text=True, check=True)
        line = next(line for line in done.stdout.splitlines() if line.startswith(f"affect-here {target}"))
        assert set(expected) <= set(shlex.split(line)), line


# Locales that are not UTF-8


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("arguments", [["--json"], [], ["--verbose"]], ids=["json", "table", "verbose"])
def test_commands_run_with_any_terminal_encoding(
    encoding: str, arguments: list[str], demo_data: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(demo_data, data)
    labels = next(data.rglob("Train_Set"))
    (labels / "노래 é.txt").write_text("valence,arousal\n0.5,0.5\n")
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "affect", "audit", "--data", str(data), "--work", str(tmp_path / "work")]
    done = subprocess.run([*command, *arguments], capture_output=True, env=environment, check=False)
    assert done.returncode == 3, done.stderr
    assert b"Traceback" not in done.stderr
    if arguments == ["--json"]:
        assert json.loads(done.stdout.decode(encoding))["failed"]
    listed = json.loads((tmp_path / "work" / "failures.json").read_text(encoding="utf-8"))
    refused = next(problem for problem in listed["audit"] if "characters" in problem["message"])
    assert "PYTHONUTF8=1" in refused["remedy"]
    helped = subprocess.run([*command[:3], "--help"], capture_output=True, env=environment, check=False)
    assert helped.returncode == 0, helped.stderr


# Half an installation


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("torch", "torch"), ("torchvision", "torchvision"), ("numpy", "numpy"), ("h5py", "h5py"), ("av", "av"),
        ("cv2", "opencv-python-headless"), ("decord", "decord"), ("dask", "dask"), ("torch,av,numpy,yaml", "PyYAML"),
    ],
)  # fmt: skip
def test_doctor_names_the_missing_package_and_the_remedy(module: str, package: str, tmp_path: Path) -> None:
    done = run(without_packages, module, "doctor", "--json", "--work", tmp_path)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    checks = {check["name"].lower(): check for check in reversed(json.loads(done.stdout))}
    assert checks[package.lower()]["status"] == "missing"
    assert "pip install" in checks[package.lower()]["remedy"]
    assert {"python", "cores", "memory", "disk"} <= checks.keys()
