"""The project's own rules: modules import from lower layers, some libraries have one importer, --help is light."""

import ast
import functools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from affect.tests.child import output
from affect.tests.programs.commands import traced

ROOT = Path(__file__).parent.parent
FOLDERS = ("commands", "configs", "models", "pipeline")
PACKAGE = [ROOT / f"{name}.py" for name in ("__init__", "__main__", "cli")]
PACKAGE += sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

# Layers, the highest first. A module may import from its own unit and from lower layers; from the package itself only
# its version.
LAYERS = (
    ("cli", "__main__"),
    ("commands",),
    ("pipeline.app", "pipeline.api"),
    ("pipeline.stages",),
    ("pipeline.visualization",),
    ("pipeline.runs",),
    ("pipeline.inference", "pipeline.features"),
    ("pipeline.learning", "pipeline.cluster"),
    ("pipeline.workers",),
    ("pipeline.storage", "pipeline.ingest", "models", "configs"),
    # Every writer and reader uses them, storage and ingest alike.
    ("pipeline.storage.atomic", "pipeline.storage.permissions"),
    ("pipeline.faults",),
    ("pipeline.records", "pipeline.processes", "pipeline.background", "pipeline.progress"),
    ("pipeline.errors",),
    ("pipeline.names", "pipeline.version", "pipeline.installation"),
    ("",),
)
LAYER_OF = {unit: layer for layer, units in enumerate(LAYERS) for unit in units}
SUBCOMMANDS = {"pretrain": ("pretrain-stn", "pretrain-backbone")}
WITHOUT_A_STAGE = {"all", "app", "config", "demo-data", "pretrain", "version"}
"""Commands that run other stages, serve a page, or only print and draw."""
ONLY_IMPORTER = {
    "decord": {"pipeline.ingest.video.decoder_child"},
    "h5py": {"pipeline.storage.shard", "pipeline.storage.shard_writer"},
    "dask": {"pipeline.cluster"},
    "distributed": {"pipeline.cluster", "pipeline.workers.check", "pipeline.workers.requirements"},
    "typer": {"cli", *(f"commands.{path.stem}" for path in (ROOT / "commands").glob("*.py"))},
    "tornado": {"pipeline.app.server"},
    "jinja2": {"pipeline.visualization.html"},
    "torchvision": {"models.vision", "pipeline.stages.doctor"},
    "click": set(),
}
HEAVY = {
    "torch", "torchvision", "decord", "av", "cv2", "dask", "distributed", "h5py", "tornado", "matplotlib", "pandas",
    "scipy",
}  # fmt: skip
NEEDED_BY_TYPER_AND_RICH = {
    "annotated_doc", "attr", "click", "colorama", "markdown_it", "mdurl", "pygments", "shellingham",
    "typing_extensions",
}  # fmt: skip


MAX_LINES, MAX_PARAMETERS = 300, 8
LONGER = {"configs.schema"}
"""Modules that are one thing: every setting with its description."""
TESTS = sorted((ROOT / "tests").rglob("*.py"))
WAITS = {"run", "check_call", "check_output", "call", "communicate", "wait"}
"""Functions whose timeout would limit the time of a test. `timeout` in pyproject.toml ends a test that hangs."""
FORBIDDEN_IN_TESTS = {"time.sleep", "asyncio.sleep", "exec", "eval", "compile"}
CLOCKS = {"time", "timeit"}
"""Tests compare counts, order, memory and CPU-independent figures, so they need no clock."""


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def unit_of(module: str) -> str:
    """The unit of a module in LAYERS: the module itself or its nearest package there."""
    parts = module.split(".")
    while parts and ".".join(parts) not in LAYER_OF:
        parts.pop()
    return ".".join(parts)


def imports(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Line, absolute name and whether it belongs to affect, of each import in the file."""
    package = list(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, False
        elif isinstance(node, ast.ImportFrom):
            if not node.level:
                yield node.lineno, node.module or "", False
                continue
            base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
            for alias in node.names:
                whole = ROOT.joinpath(*base, alias.name)
                is_module = whole.is_dir() or whole.with_suffix(".py").is_file()
                yield node.lineno, ".".join([*base, alias.name] if is_module else base), True


@pytest.mark.parametrize("path", [path for path in PACKAGE if path.parent != ROOT], ids=module_name)
def test_modules_import_only_from_lower_layers(path: Path) -> None:
    unit = unit_of(module_name(path))
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for line, name, ours in imports(path)
        if ours and unit_of(name) != unit and LAYER_OF[unit_of(name)] <= LAYER_OF[unit]
    ]
    assert not wrong


@pytest.mark.parametrize("path", [path for path in PACKAGE if path.parent.name == "models"], ids=module_name)
def test_models_import_only_models_and_errors(path: Path) -> None:
    wrong = [name for _, name, ours in imports(path) if ours and unit_of(name) not in ("models", "pipeline.errors")]
    assert not wrong


def test_every_folder_is_in_the_list_of_layers() -> None:
    folders = {path.parent for path in PACKAGE if path.parent != ROOT}
    unknown = [folder for folder in folders if not unit_of(".".join(folder.relative_to(ROOT).parts))]
    assert not [folder for folder in unknown if folder != ROOT / "pipeline"]
    modules = {f"pipeline.{path.stem}" for path in (ROOT / "pipeline").glob("*.py")} - {"pipeline.__init__"}
    assert modules <= LAYER_OF.keys()


def test_there_is_one_stage_module_per_command() -> None:
    """One module per command, named as the command, and nothing else."""
    from affect.cli import ORDER

    commands = {*ORDER, *(name for names in SUBCOMMANDS.values() for name in names)} - WITHOUT_A_STAGE
    stages = {path.stem.replace("_", "-") for path in (ROOT / "pipeline" / "stages").glob("*.py")} - {"--init--"}
    assert stages == commands


def test_there_is_no_import_cycle() -> None:
    """Imports inside functions count too."""
    graph = {module_name(path): {name for _, name, ours in imports(path) if ours} for path in PACKAGE}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " imports ".join((*path[path.index(name) :], name))
        if name in done:
            return
        for other in graph.get(name, ()):
            if other != name:
                visit(other, (*path, name))
        done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("path", PACKAGE, ids=module_name)
def test_some_libraries_are_imported_in_one_place_only(path: Path) -> None:
    module = module_name(path)
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for line, name, ours in imports(path)
        if not ours and module not in ONLY_IMPORTER.get(name.split(".")[0], {module})
    ]
    assert not wrong


@pytest.mark.parametrize("path", PACKAGE, ids=module_name)
def test_no_code_unpickles(path: Path) -> None:
    for node in ast.walk(parsed(path)):
        where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.ImportFrom) and node.module == "pickle":
            assert [alias.name for alias in node.names] == ["UnpicklingError"], where
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("pickle", "cloudpickle", "joblib"):
            assert node.attr == "UnpicklingError", where
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            assert any(word.arg == "weights_only" and ast.unparse(word.value) == "True" for word in node.keywords), (
                where
            )


def test_the_package_is_imported_relatively() -> None:
    wrong = [module_name(path) for path in PACKAGE for _, name, ours in imports(path) if name.split(".")[0] == "affect"]
    assert not wrong


@pytest.mark.parametrize("path", PACKAGE, ids=module_name)
def test_no_exception_is_swallowed(path: Path) -> None:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "everything"
            raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
            broad = caught in ("everything", "Exception", "BaseException")
            assert raises or not broad, f"{path.relative_to(ROOT)}:{node.lineno} catches {caught} and goes on"


@pytest.mark.parametrize("path", [path for path in PACKAGE if module_name(path) not in LONGER], ids=module_name)
def test_modules_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", [path for path in PACKAGE if path.parent.name != "commands"], ids=module_name)
def test_functions_have_few_parameters(path: Path) -> None:
    """The parameters of a command are its options; elsewhere, what travels together is a data class."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            named = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            own = [argument for argument in named if argument.arg not in ("self", "cls")]
            assert len(own) <= MAX_PARAMETERS, f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"


def unreliable(node: ast.AST) -> str | None:
    """What makes a test unreliable or hides its code from ruff and the type checker; None if nothing does."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        return "imports a clock" if CLOCKS & set(names) else None
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        if called in FORBIDDEN_IN_TESTS:
            return f"calls {called}"
        name = called.rpartition(".")[2]
        limited = any(word.arg == "timeout" for word in node.keywords)
        limited |= name != called and name == "wait" and any(isinstance(value, ast.Constant) for value in node.args)
        return "limits the time of a wait" if limited and name in WAITS else None
    if isinstance(node, ast.List | ast.Tuple):
        words = [ast.unparse(item) for item in node.elts]
        return "runs a string as a program" if "sys.executable" in words and "'-c'" in words else None
    return None


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_tests_neither_sleep_nor_limit_time_nor_run_strings_of_code(path: Path) -> None:
    """Code for a process of its own is a function in tests/programs; see tests/child.py and tests/waiting.py."""
    found = [(node, unreliable(node)) for node in ast.walk(parsed(path))]
    assert not [f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)} {reason}" for node, reason in found if reason]


@pytest.mark.parametrize(
    "line",
    [
        "import time", "from time import sleep", "asyncio.sleep(1)", "eval('1 + 1')", "exec(code)",
        "subprocess.run(command, timeout=60)", "process.communicate(timeout=30)", "done.wait(20)",
        "subprocess.run([sys.executable, '-W', 'ignore', '-c', code])",
    ],
)  # fmt: skip
def test_unreliable_tests_are_found(line: str) -> None:
    assert any(unreliable(node) for node in ast.walk(ast.parse(line)))


def test_every_package_is_installed() -> None:
    listed = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    packages = {
        ".".join(("affect", *path.relative_to(ROOT).parent.parts)) for path in PACKAGE if path.name == "__init__.py"
    }
    assert not [name for name in packages if f'"{name}"' not in listed]


def imported_by(folder: Path, *arguments: str) -> set[str]:
    """The third-party libraries that a command imports, by their top-level names. folder: for a temporary file."""
    output(traced, folder / "trace.json", *arguments)
    return set(json.loads((folder / "trace.json").read_text(encoding="utf-8"))["libraries"])


@pytest.mark.parametrize("arguments", [["train", "--help"], ["version"], ["config", "show"]], ids=" ".join)
def test_light_commands_import_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    assert not imported_by(tmp_path, *arguments) & HEAVY


def test_help_imports_only_the_libraries_of_the_command_line(tmp_path: Path) -> None:
    """So that it shows at once."""
    libraries = imported_by(tmp_path, "--help")
    assert {"typer", "rich"} <= libraries
    assert libraries <= {"typer", "rich", *NEEDED_BY_TYPER_AND_RICH}
