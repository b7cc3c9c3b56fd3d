"""doctor: no problem on a machine where the tests run, and a remedy for each problem that there is."""

import json
from pathlib import Path

import pytest
from affect.cli import app
from affect.pipeline.stages.doctor import examine
from typer.testing import CliRunner


def test_nothing_is_missing_on_the_machine_of_the_tests(tmp_path: Path) -> None:
    checks = {check.name: check for check in examine(tmp_path / "not" / "yet" / "there")}
    assert {"Python", "packages", "torch", "device", "precision", "PyAV", "codecs", "cores", "memory", "disk"} <= set(
        checks
    )
    assert not [check for check in checks.values() if check.status == "missing"]
    assert all(check.remedy for check in checks.values() if check.status != "ok")
    assert str(tmp_path) in checks["disk"].found
    assert not list(tmp_path.iterdir())


def test_doctor_prints_json_and_exits_with_1_if_something_is_missing(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", "--json", "--work", str(tmp_path)])
    assert done.exit_code == 0
    assert {"name", "status", "found", "remedy"} == set(json.loads(done.stdout)[0])
    (tmp_path / "readonly").mkdir()
    blocked = Path("/proc/self/task")
    if blocked.is_dir():  # nobody can write to this folder
        done = CliRunner().invoke(app, ["doctor", "--work", str(blocked)])
        assert done.exit_code == 1
        assert "Choose another --work" in done.stderr


def install_fake_affect(folder: Path, entry_points: str = "") -> None:
    info = folder / "affect-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: affect\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(entry_points)


def test_doctor_reports_the_unrelated_package_affect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_fake_affect(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    done = CliRunner().invoke(app, ["doctor", "--json", "--work", str(tmp_path)])
    assert done.exit_code == 1
    check = next(check for check in json.loads(done.stdout) if check["name"] == "affect")
    assert check["status"] == "missing"
    assert "unrelated package affect 0.1" in check["found"]
    assert str(tmp_path) in check["found"]
    assert "pip uninstall affect" in check["remedy"]
    assert "pip install --force-reinstall" in check["remedy"]


def test_an_installation_under_the_old_name_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_fake_affect(tmp_path, "[console_scripts]\naffect = affect.cli:app\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    checks = examine(tmp_path)
    assert "affect" not in [check.name for check in checks]
    check = next(check for check in checks if str(tmp_path) in check.found)
    assert (check.name, check.status) == ("old name", "note")
    assert "pip uninstall affect" in check.remedy
