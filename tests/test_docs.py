"""The docs: pages build without broken links, the reference is up to date, every command and setting is valid."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from affect.cli import app
from affect.configs.schema import Config, load
from typer.main import get_command

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
MADE = DOCS / "reference"


def commands(page: Path) -> list[str]:
    """The affect commands in a page's shell code, in their order: fenced as bash, or indented."""
    found: list[str] = []
    fence = ""
    for line in page.read_text(encoding="utf-8").splitlines():
        if mark := re.match(r"```(\w*)", line):
            fence = "" if fence else mark[1] or "text"
            continue
        shell = line if fence == "bash" else line[4:] if not fence and line.startswith("    ") else ""
        match = re.match(r"(?:\.venv/bin/)?(affect [a-z].*)", shell)
        if match and "…" not in line:
            found += [part.strip() for part in match[1].split("&&")]
    return found


WRITTEN = [(page.relative_to(ROOT).as_posix(), line) for page in PAGES for line in commands(page)]


def parsed(line: str) -> tuple[Any, list[str]]:
    """The command that a line names, and its other words."""
    command: Any = get_command(app)
    words = [word.strip("'\"") for word in re.findall(r"'[^']*'|\"[^\"]*\"|\S+", line)[1:]]
    while words and hasattr(command, "commands"):
        assert words[0] in command.commands, f"there is no command {words[0]}"
        command = command.commands[words.pop(0)]
    return command, words


@pytest.mark.parametrize(("page", "line"), WRITTEN)
def test_every_command_in_the_docs_is_valid(page: str, line: str) -> None:
    """Command, options, what they need, settings and configs: all but the paths."""
    command, words = parsed(line)
    options = {option: it for it in command.params for option in it.opts}
    given, free = set(), 0
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            free += 1
            continue
        assert word in options or word in ("--help", "-h"), f"{page}: {line}: no option {word}"
        if word in options:
            given.add(options[word].name)
            value = "" if options[word].is_flag else words.pop(0)
            if word == "--set":
                load("demo", [value])
            if word == "--config" and not value.endswith((".yaml", ".yml")):
                load(value)
    arguments = [it for it in command.params if not it.opts[0].startswith("-")]
    assert not free or arguments, f"{page}: {line}: takes no {free} words"
    needed = {it.name for it in command.params if it.required} - given - {it.name for it in arguments if free}
    assert not needed or "--help" in line, f"{page}: {line}: lacks {needed}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_setting_in_the_docs_exists(page: Path) -> None:
    sections = {name: field.annotation for name, field in Config.model_fields.items()}
    for section, key in re.findall(
        r"`(?:--set )?([a-z_]+)\.([a-z_]+)(?:[=:][^`]*)?`", page.read_text(encoding="utf-8")
    ):
        if hasattr(sections.get(section), "model_fields"):
            known: Any = sections[section]
            assert key in known.model_fields or key in ("py", "md", "yaml", "onnx", "pt2", "sbatch"), (
                f"{page.name}: {section}.{key}"
            )


def test_the_reference_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "make_reference.py"), "--check"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}Run: make docs"


@pytest.mark.slow
def test_the_site_builds_without_broken_links(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "reference" / "commands" / "index.html").is_file()


def test_the_readme_is_short_and_shows_a_command_with_its_output_first() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= 800
    first_screen = "\n".join(text.splitlines()[:40])
    assert re.search(r"^```bash\n.*^affect predict .*^```\n\n```text\n.+^```", first_screen, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_page_installs_the_unrelated_package_of_the_same_name(page: Path) -> None:
    """`affect` on the package index is somebody else's; ours is `affect-video`."""
    assert not re.search(r"pip install [^\n`]*\baffect(?![-\w])", page.read_text(encoding="utf-8"))


def test_links_in_readme_and_contributing_exist() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert link.startswith("http") or (ROOT / link).exists(), f"{page.name}: {link}"


@pytest.mark.parametrize("name", ["cluster.py", "train.sbatch"])
def test_the_page_shows_the_scripts_that_make_cluster_runs(name: str) -> None:
    page = (DOCS / "howto" / "cluster.md").read_text(encoding="utf-8")
    script = (DOCS / "examples" / "slurm" / name).read_text(encoding="utf-8")
    assert f"\n{script}```\n" in page
    assert f"(../examples/slurm/{name})" in page


def test_the_example_uses_only_the_public_api() -> None:
    text = (DOCS / "examples" / "one_video.py").read_text(encoding="utf-8")
    assert re.findall(r"^(?:import|from) (\S+)", text, flags=re.MULTILINE) == ["sys", "affect"]
    assert not re.findall(r"\b_[a-z]", text)


@pytest.mark.slow
def test_the_example_runs(tmp_path: Path, write_video: Callable[[Path, int], Path]) -> None:
    pytest.importorskip("pandas")
    from affect.models.affect_net import AffectNet
    from affect.models.backbone import scratch
    from affect.models.head import HeadSettings, TemporalHead
    from affect.models.stn import SpatialTransformer
    from affect.pipeline.learning.model_file import NAME, save_model

    config = load("demo", ["frames.size=32", "stn.localiser=none", "stn.view=32", "stn.crop=32", "clip.length=8"])
    net = AffectNet(
        SpatialTransformer("crop", 32, 32, 0.1), scratch(), TemporalHead(2048, HeadSettings(**config.head.model_dump()))
    )
    save_model(tmp_path / NAME, net, fingerprint="f", encoder="e", config=config.model_dump(mode="json"))
    video = write_video(tmp_path / "film.mp4", 12)
    done = subprocess.run(
        [sys.executable, str(DOCS / "examples" / "one_video.py"), str(tmp_path), str(video)],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "MPLBACKEND": "agg"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("12 frames")
    assert "highest arousal at" in done.stdout
