"""The project's own rules: modules import from lower layers, some libraries have one importer, --help is light."""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

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
    ("pipeline.records", "pipeline.processes", "pipeline.progress"),
    ("pipeline.errors",),
    ("pipeline.names", "pipeline.version", "pipeline.installation"),
    ("",),
)
LAYER_OF = {unit: layer for layer, units in enumerate(LAYERS) for unit in units}
SUBCOMMANDS = {"pretrain": ("pretrain-stn", "pretrain-backbone")}
WITHOUT_A_STAGE = {"all", "app", "config", "demo-data", "pretrain", "version"}
"""Commands that run other stages, serve a page, or only print and draw."""
ONLY_IMPORTER = {
    "decord": {"pipeline.ingest.video.decode"},
    "h5py": {"pipeline.storage.shard"},
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


def test_every_package_is_installed() -> None:
    listed = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    packages = {
        ".".join(("affect", *path.relative_to(ROOT).parent.parts)) for path in PACKAGE if path.name == "__init__.py"
    }
    assert not [name for name in packages if f'"{name}"' not in listed]


def imported_by(*arguments: str) -> set[str]:
    """The third-party libraries that a command imports, by their top-level names."""
    code = (
        "import sys\nbefore = set(sys.modules)\nfrom affect.cli import app\nsys.argv = ['affect', *sys.argv[1:]]\n"
        "try:\n    app()\nfinally:\n"
        "    print(*{name.split('.')[0] for name in sys.modules.keys() - before}, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split()) - sys.stdlib_module_names - {"affect"}


@pytest.mark.parametrize("arguments", [["train", "--help"], ["version"], ["config", "show"]], ids=" ".join)
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    assert not imported_by(*arguments) & HEAVY


def test_help_imports_only_the_libraries_of_the_command_line() -> None:
    """So that it shows at once."""
    libraries = imported_by("--help")
    assert {"typer", "rich"} <= libraries
    assert libraries <= {"typer", "rich", *NEEDED_BY_TYPER_AND_RICH}
