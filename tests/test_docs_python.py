"""The script in docs/python.md runs as it stands, and uses nothing but what is public."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "python.md"


def test_the_script_of_the_page_runs(
    tmp_path: Path, tiny_run: Callable[..., Path], talk: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    tiny_run(tmp_path / "work" / "train" / "default")
    (tmp_path / "talk.mp4").symlink_to(talk)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    script = "\n".join(blocks)
    assert set(re.findall(r"^(?:import|from) (\S+)", script, re.MULTILINE)) == {"affect", "numpy"}
    assert not re.search(r"\._|pipeline", script)
    exec(compile(script, str(PAGE), "exec"), {})
    assert {"talk.csv", "talk.json", "talk.png"} <= {path.name for path in tmp_path.iterdir()}
    assert "does not exist" in capsys.readouterr().out
