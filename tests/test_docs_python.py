"""The Python code in docs/python.md and in the README runs, and uses only the public API."""

import re
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "python.md"


def script_of(page: Path) -> str:
    """All Python blocks of a page, as one script."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE))


def run_script(script: str) -> None:
    """Runs it in this process, as a file in the current folder."""
    Path("script.py").write_text(script, encoding="utf-8")
    runpy.run_path("script.py")


def test_the_script_of_the_page_runs(
    tmp_path: Path, tiny_run: Callable[..., Path], video_with_sound: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    tiny_run(tmp_path / "work" / "train" / "default")
    (tmp_path / "talk.mp4").symlink_to(video_with_sound)
    Image.new("RGB", (40, 30), "teal").save(tmp_path / "face.jpg")
    monkeypatch.chdir(tmp_path)
    script = script_of(PAGE)
    assert set(re.findall(r"^(?:import|from) (\S+)", script, re.MULTILINE)) == {"affect", "numpy"}
    assert not re.search(r"\._|pipeline", script)
    run_script(script)
    assert {"talk.csv", "talk.json", "talk.png"} <= {path.name for path in tmp_path.iterdir()}
    assert "does not exist" in capsys.readouterr().out


def test_the_python_of_the_readme_prints_what_the_readme_shows(
    tmp_path: Path, full_resnet: None, video_with_sound: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The same lines, whatever the numbers in them are."""
    readme = ROOT / "README.md"
    script = script_of(readme)
    shown = re.search(r"^```python\n.*?^```\n\n```text\n(.*?)^```", readme.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert shown
    video = re.search(r"predict\(\"([^\"]+)\"\)", script)
    assert video
    (tmp_path / video[1]).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / video[1]).symlink_to(video_with_sound)
    monkeypatch.chdir(tmp_path)
    run_script(script)
    number = r"(?:[-−+]?\d[\d.]*(?:e[-+]\d+)?|nan)"
    output = re.sub(rf"\s*{number}\s*(?=\])|\s*{number}", " #", capsys.readouterr().out)
    assert output == re.sub(rf"\s*{number}\s*(?=\])|\s*{number}", " #", shown[1])
