"""The doctor finds a machine on which the tests run in order, and says what is not."""

import json
from pathlib import Path

from affect.cli import app
from affect.pipeline.stages.doctor import examine
from typer.testing import CliRunner


def test_this_machine_has_what_affect_needs(tmp_path: Path) -> None:
    checks = {check.name: check for check in examine(tmp_path / "not" / "yet" / "there")}
    assert {"Python", "packages", "torch", "device", "precision", "PyAV", "codecs", "cores", "memory", "disk"} <= set(
        checks
    )
    assert not [check for check in checks.values() if check.status == "missing"]
    assert all(check.remedy for check in checks.values() if check.status != "ok")
    assert str(tmp_path) in checks["disk"].found
    assert not list(tmp_path.iterdir())


def test_it_prints_json_and_exits_1_where_something_is_missing(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", "--json", "--work", str(tmp_path)])
    assert done.exit_code == 0
    assert {"name", "status", "found", "remedy"} == set(json.loads(done.stdout)[0])
    (tmp_path / "readonly").mkdir()
    blocked = Path("/proc/self/task")
    if blocked.is_dir():  # a folder in which nobody can write
        done = CliRunner().invoke(app, ["doctor", "--work", str(blocked)])
        assert done.exit_code == 1
        assert "Choose another --work" in done.stderr
