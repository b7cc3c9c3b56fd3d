"""The command line as a user types it: what it prints, where, and how it exits."""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from affect import __version__
from affect.cli import ORDER, app
from affect.configs.schema import Config, dump, load
from affect.pipeline.ingest.video.decode import probe
from affect.tests.child import run as run_program
from affect.tests.programs.commands import installed, traced
from affect.tests.waiting import wait_until
from typer.main import get_command
from typer.testing import CliRunner, Result

STAGES = (
    "audit", "extract-frames", "pretrain stn", "pretrain backbone", "adapt", "cache-features", "train", "evaluate",
    "predict", "report", "submit", "export",
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
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def assert_one_line(result: Result, *expected: str) -> None:
    """An error that the user can mend: one line, on stderr, exit code 1."""
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    for text in expected:
        assert text in result.stderr


def plain(text: str) -> str:
    """Words only: no frames, no line breaks."""
    return " ".join(re.sub(r"[─-╿]", " ", text).split())


def test_help_lists_the_commands_in_the_order_of_use() -> None:
    result = run("--help")
    assert result.exit_code == 0
    found = re.findall(r"^│ (\S+) {2,}\S", result.stdout, flags=re.MULTILINE)
    assert tuple(name for name in found if name in ORDER) == ORDER


@pytest.mark.parametrize(
    "command", [*STAGES, "all", "app", "demo-data", "detect-boxes", "config show", "doctor", "version"]
)
def test_every_command_has_an_example(command: str) -> None:
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    assert f"Example: affect {command}" in plain(result.stdout)


def test_version() -> None:
    assert run("version").stdout == run("--version").stdout == f"{__version__}\n"
    assert shell("version").stdout == f"{__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["trian"], "Did you mean 'train'"),
        (["pretrain", "stm"], "Did you mean 'stn'"),
        (["train", "--dta", "x"], "--data"),
        (["train"], "Missing option '--data'"),
        (["export"], "Missing option '--out'"),
        (["extract-frames", "--data", ".", "--workers", "many"], "--workers"),
        (["extract-frames", "--data", ".", "--workers", "-2"], "--workers"),
    ],
    ids=str,
)
def test_wrong_usage_names_the_nearest(arguments: list[str], expected: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert expected in plain(result.stderr)
    assert result.stdout == ""


@pytest.mark.parametrize(
    "command",
    [stage for stage in STAGES if stage not in ("pretrain backbone", "predict", "report", "submit", "export")],
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
    ("option", "value", "expected"),
    [
        ("--set", "train.epochz=3", "Did you mean train.epochs?"),
        ("--set", "train.epochs=0", "train.epochs is 0"),
        ("--set", "train.epochs", "section.key=value"),
        ("--set", "trian.epochs=3", "Did you mean train?"),
        ("--set", "head.readout=fram", "Did you mean frame?"),
        ("--config", "dmeo", "Did you mean demo?"),
        ("--config", "nope.yaml", "does not exist"),
    ],
)
def test_a_wrong_setting_is_one_line_and_is_not_remembered(
    option: str, value: str, expected: str, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    assert_one_line(run("audit", "--data", tmp_path, "--work", work, option, value), expected)
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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("command", [["version"], ["config", "show"]])
def test_output_that_cannot_be_written_is_one_line(command: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "affect", *command], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == (
        "error: the output cannot be written (No space left on device). Free space, or choose another place.\n"
    )


def test_config_show_prints_what_load_reads(tmp_path: Path) -> None:
    result = run("config", "show", "--config", "affwild2", "--set", "train.epochs=3", "--work", tmp_path)
    config = Config.model_validate(yaml.safe_load(result.stdout))
    assert config == load("affwild2", ["train.epochs=3"])
    again = run("config", "show", "--config", "affwild2", "--set", "train.epochs=3", "--work", tmp_path, "--json")
    assert Config.model_validate(json.loads(again.stdout)) == config
    assert not list(tmp_path.iterdir())


def test_ctrl_c_exits_130(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "affect", "demo-data", str(tmp_path / "demo"), "--videos", "40", "--workers", "2"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as child:
        wait_until(lambda: list(tmp_path.rglob("*.mp4")), child)
        os.killpg(child.pid, signal.SIGINT)
        _, stderr = child.communicate()
    assert child.returncode == 130
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1].startswith("interrupted: ")


@pytest.fixture(scope="module")
def finished_work(demo_data: Path, tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A work folder in which `affect all` has run on the demo data, and its stderr."""
    work = tmp_path_factory.mktemp("finished") / "work"
    config = work.parent / "tiny.yaml"
    config.write_text(dump(tiny_config), encoding="utf-8")
    done = shell("all", "--data", demo_data, "--work", work, "--config", config)
    assert done.returncode == 3, done.stderr
    assert done.stdout == ""
    return work, done.stderr


def test_affect_all_writes_all_outputs_and_lists_unusable_inputs(finished_work: tuple[Path, str]) -> None:
    work, stderr = finished_work
    for name in ("config.yaml", "audit.json", "weights/stn.safetensors", "weights/backbone.safetensors",
                 "weights/adapted.safetensors", "train/default/model.safetensors", "report/index.html"):  # fmt: skip
        assert (work / name).is_file(), name
    listed = json.loads((work / "failures.json").read_text(encoding="utf-8"))
    names = {problem["name"] for problem in listed["audit"]}
    assert {"refused", "videoless"} <= names
    for problem in listed["audit"]:
        assert problem["message"] in stderr
    assert str(work / "report" / "index.html") in stderr
    assert "Traceback" not in stderr
    assert not list(work.rglob("*.part")) + list(work.rglob("*.tmp"))


def test_affect_all_predicts_every_frame_of_a_validation_video(
    finished_work: tuple[Path, str], demo_data: Path
) -> None:
    work, _ = finished_work
    tables = [path for path in (work / "predict").glob("*.csv") if not path.name.endswith(".clips.csv")]
    assert tables
    for table in tables:
        lines = table.read_text(encoding="utf-8").splitlines()
        assert lines[0] == (
            "frame,time,face,valence,arousal,x0,y0,x1,y1,valence_low,valence_high,arousal_low,arousal_high"
        )
        video = next(path for path in demo_data.rglob("videos/**/*") if path.stem == table.stem)
        assert len(lines) - 1 == probe(video).frames


def test_a_second_run_of_all_decodes_no_video_writes_no_file_and_imports_no_torch(
    finished_work: tuple[Path, str], demo_data: Path, tmp_path: Path
) -> None:
    work, _ = finished_work
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file()}
    done = run_program(traced, tmp_path / "trace.json", "all", "--data", demo_data, "--work", work)
    assert (done.returncode, done.stdout) == (3, ""), done.stderr
    trace = json.loads((tmp_path / "trace.json").read_text())
    assert not {"torch", "dask", "matplotlib", "decord", "av"} & set(trace["libraries"])
    assert not [words for words in trace["processes"] if "affect" in words]  # decoders are processes of their own
    assert set(re.findall(r"\b(\d+) made", done.stderr)) == {"0"}, done.stderr
    after = {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file()}
    assert after == before


def test_labels_that_changed_after_caching_are_not_trained_on(
    finished_work: tuple[Path, str], demo_data: Path, tmp_path: Path
) -> None:
    data, work = tmp_path / "data", tmp_path / "work"
    shutil.copytree(demo_data, data)
    shutil.copytree(finished_work[0], work)
    label = next(
        path for path in sorted(data.rglob("Train_Set/*.txt")) if (work / f"features/{path.stem}.h5").is_file()
    )
    lines = label.read_text().splitlines()
    label.write_text("\n".join([*lines[:-1], "0.5,0.25"]) + "\n")
    assert_one_line(
        run("train", "--data", data, "--work", work, "--run", "again"), f"the labels of {label.stem}", "cache"
    )
    assert run("cache-features", "--data", data, "--work", work).exit_code in (0, 3)
    assert run("train", "--data", data, "--work", work, "--run", "again", "--set", "train.epochs=1").exit_code == 0


def test_stages_without_trouble_exit_0(finished_work: tuple[Path, str], demo_data: Path) -> None:
    work, _ = finished_work
    for command in ("extract-frames", "pretrain stn", "adapt", "cache-features", "train", "evaluate"):
        result = run(*command.split(), "--data", demo_data, "--work", work, "--quiet")
        assert (command, result.exit_code, result.stderr) == (command, 0, "")


def test_evaluate_prints_its_figures_as_json_and_as_a_table(finished_work: tuple[Path, str], demo_data: Path) -> None:
    work, _ = finished_work
    result = run("evaluate", "--data", demo_data, "--work", work, "--json")
    metrics = json.loads(result.stdout)
    for name in ("ccc_valence", "ccc_arousal", "ccc_mean", "mse_valence", "mse_arousal", "rmse_valence", "pcc_arousal"):
        assert isinstance(metrics[name], float)
    assert metrics["ccc_mean"] == pytest.approx((metrics["ccc_valence"] + metrics["ccc_arousal"]) / 2)
    table = run("evaluate", "--data", demo_data, "--work", work).stdout
    assert f"{metrics['ccc_valence']:.3f}" in next(line for line in table.splitlines() if line.startswith("ccc"))


def test_audit_prints_a_table_and_json_to_stdout(finished_work: tuple[Path, str], demo_data: Path) -> None:
    work, _ = finished_work
    table = run("audit", "--data", demo_data, "--work", work)
    assert table.exit_code == 3
    assert "refused" in table.stdout
    report = json.loads(run("audit", "--data", demo_data, "--work", work, "--json").stdout)
    assert report["stage"] == "audit"
    assert "refused" in {problem["name"] for problem in report["failed"]}


def test_predict_accepts_any_video(finished_work: tuple[Path, str], demo_data: Path, tmp_path: Path) -> None:
    work, _ = finished_work
    video = next(demo_data.rglob("videos/**/*.mp4"))
    model = work / "train" / "default"
    result = run("predict", video, "--model", model, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["made"] == [video.stem]
    rows = (tmp_path / "out" / f"{video.stem}.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert len(rows) == probe(video).frames
    times = [float(row.split(",")[1]) for row in rows]
    assert times == sorted(set(times))


def test_predict_of_a_missing_video_or_model_is_an_error(
    finished_work: tuple[Path, str], demo_data: Path, tmp_path: Path
) -> None:
    work, _ = finished_work
    video = next(demo_data.rglob("videos/**/*.mp4"))
    model = work / "train" / "default"
    assert_one_line(run("predict", video, "--model", tmp_path / "nope", "--out", tmp_path), "nope")
    assert_one_line(run("predict", video, "--model", tmp_path, "--out", tmp_path / "out"), str(tmp_path), "train")
    missing = run("predict", tmp_path / "nope.mp4", "--model", model, "--out", tmp_path / "out")
    assert missing.exit_code in (1, 3)
    assert "nope" in missing.stderr


def test_an_unknown_run_is_one_line(finished_work: tuple[Path, str], demo_data: Path) -> None:
    work, _ = finished_work
    assert_one_line(run("evaluate", "--data", demo_data, "--work", work, "--run", "nope"), "nope", "affect train")


def test_a_changed_setting_makes_only_its_dependent_outputs_again(
    finished_work: tuple[Path, str], demo_data: Path
) -> None:
    work, _ = finished_work
    wide = ("--data", demo_data, "--work", work, "--set", "head.hidden=24")
    assert "0 made" in run("cache-features", *wide).stderr
    assert "1 made" in run("train", *wide, "--run", "wide").stderr
    assert "0 made" in run("train", *wide, "--run", "wide").stderr
    assert "1 made" in run("train", "--data", demo_data, "--work", work, "--run", "wide").stderr


@pytest.mark.parametrize("stage", ["pretrain stn", "adapt", "cache-features", "train", "evaluate"])
def test_a_stage_without_the_one_before_is_one_line(stage: str, demo_data: Path, tmp_path: Path) -> None:
    result = run(*stage.split(), "--data", demo_data, "--work", tmp_path)
    assert_one_line(result, "affect ")


def test_a_report_without_runs_is_a_one_line_error(tmp_path: Path) -> None:
    assert_one_line(run("report", "--work", tmp_path), "affect ")


def advised() -> list[tuple[str, str]]:
    """Every `affect …` command in the documents, and in what the package says."""
    root = Path(__file__).parents[2]
    files = [*root.glob("*.md"), *root.glob("docs/*.md"), *root.glob("*.py")]
    files += [path for room in ("configs", "models", "pipeline") for path in (root / room).rglob("*.py")]
    found = set()
    for path in files:
        text = path.read_text(encoding="utf-8")
        for match in re.finditer(r"(?:`|Run: |Example: |bin/|(?<!b)\"|&& )affect ((?:[a-z]+)[^`\"\n()]*)", text):
            found.add((str(path.relative_to(root)), match[1].split(" && ")[0].strip()))
    return sorted(found)


@pytest.mark.parametrize(("where", "line"), advised())
def test_every_command_that_is_advised_exists(where: str, line: str) -> None:
    command: Any = get_command(app)
    words = line.replace("=", " ").split()
    while words and hasattr(command, "commands"):
        name = words.pop(0).rstrip(".,;:")
        assert name in command.commands, f"{where} advises `affect {line}`"
        command = command.commands[name]
    options = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
    given = {word.rstrip(".,;:`") for word in words if re.fullmatch(r"--[a-z-]+[.,;:`]?", word)}
    assert given <= options, f"{where} advises `affect {line}`"


def test_ferplus_is_counted_by_class_and_rule(demo_data: Path, tmp_path: Path) -> None:
    counted = run("pretrain", "backbone", "--ferplus", demo_data / "ferplus", "--count", "--json", "--work", tmp_path)
    counts = json.loads(counted.stdout)
    lines = (demo_data / "ferplus" / "fer2013new.csv").read_text().splitlines()
    assert sum(own["rows"] for own in counts.values()) == len(lines) - 1
    assert all(sum(own["classes"].values()) == own["majority"] for own in counts.values())
    shown = run("pretrain", "backbone", "--ferplus", demo_data / "ferplus", "--count", "--work", tmp_path)
    assert "contempt" in shown.stdout
    missing = run("pretrain", "backbone", "--ferplus", tmp_path, "--count", "--work", tmp_path)
    assert_one_line(missing, "fer2013new.csv")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("affect tra", {"train"}),
        ("affect train --config aff", {"affwild2"}),
        ("affect train --set train.ep", {"train.epochs="}),
        ("affect train --quie", {"--quiet"}),
    ],
)
def test_the_shell_completes(typed: str, offered: set[str]) -> None:
    words = {"_AFFECT_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    done = run_program(installed, environment={**os.environ, **words})
    assert set(done.stdout.split()) == offered, done.stderr


def test_runs_are_completed_from_the_work_folder(tmp_path: Path) -> None:
    (tmp_path / "train" / "wide").mkdir(parents=True)
    (tmp_path / "train" / "wide" / "model.safetensors").touch()
    typed = f"affect evaluate --work {tmp_path} --run w"
    words = {"_AFFECT_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    done = run_program(installed, environment={**os.environ, **words})
    assert done.stdout.split() == ["wide"], done.stderr


@pytest.mark.parametrize("terminal", [True, False])
def test_colour_is_used_only_on_terminals(terminal: bool, tmp_path: Path) -> None:
    """A pipe gets none; a terminal does, unless NO_COLOR says otherwise."""
    import pty

    command = [sys.executable, "-m", "affect", "--help"]
    unset = ("NO_COLOR", "FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS", "TERM")
    plain_env = {key: value for key, value in os.environ.items() if key not in unset} | {"TERM": "xterm-256color"}
    if not terminal:
        assert "\x1b[" not in subprocess.run(command, capture_output=True, text=True, env=plain_env).stdout
        return
    shown = {}
    for name, more in (("colour", {}), ("none", {"NO_COLOR": "1"})):
        ours, theirs = pty.openpty()
        with subprocess.Popen(command, stdout=theirs, env=plain_env | more) as child:
            os.close(theirs)
            data = b""
            try:
                while part := os.read(ours, 65536):
                    data += part
            except OSError:  # the other end is closed
                pass
            assert child.wait() == 0
        os.close(ours)
        shown[name] = data
    assert re.search(rb"\x1b\[[0-9;]*3[0-9]", shown["colour"])
    assert not re.search(rb"\x1b\[[0-9;]*3[0-9]", shown["none"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_tutorials_commands_run(finished_work: tuple[Path, str], demo_data: Path, tmp_path: Path) -> None:
    """In their order, on the demo data, in a work folder in which `affect all` has run."""
    text = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("affect ")]
    assert len(lines) >= 8
    (tmp_path / "demo").symlink_to(demo_data)
    shutil.copytree(finished_work[0], tmp_path / "work")
    for line in lines:
        words = line.split()[1:]
        if words[0] == "demo-data":  # drawn already
            continue
        if words[0] == "export" and importlib.util.find_spec("onnxscript") is None:
            continue
        done = subprocess.run([sys.executable, "-m", "affect", *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode in (0, 3), f"{line}\n{done.stderr}"
        assert "Traceback" not in done.stderr
    for made in ("work/report/index.html", "work/train/wide/README.md", "exported/head.onnx"):
        assert (tmp_path / made).is_file() or "export" in made, made
    assert list((tmp_path / "out").glob("*.csv"))
