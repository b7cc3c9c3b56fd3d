"""The house's own rules: imports go down, each foreign library has one door, help is quick."""

import ast
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMMANDS = ("cli", "commands_app", "commands_keep", "commands_learn", "commands_ship", "commands_use")
PACKAGE = [ROOT / f"{name}.py" for name in ("__init__", "__main__", *COMMANDS, "options", "road", "session")]
PACKAGE += sorted(path for room in ("configs", "models", "pipeline") for path in (ROOT / room).rglob("*.py"))

# Floors from the top. A module may import from its own room and from any lower floor; from the package itself only
# its version.
FLOORS = (
    (*COMMANDS, "options", "road", "session", "__main__"),
    ("pipeline.stages",),
    ("pipeline.learning", "pipeline.cluster"),
    ("pipeline.storage", "pipeline.ingest", "models", "configs"),
    ("pipeline.records", "pipeline.errors", "pipeline.processes", "pipeline.progress"),
    ("",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
DOORS = {
    "decord": {"pipeline.ingest.video"},
    "h5py": {"pipeline.storage.shard"},
    "dask": {"pipeline.cluster"},
    "distributed": {"pipeline.cluster"},
    "typer": {*COMMANDS, "options", "session"},
    "tornado": {"pipeline.stages.app"},
    "torchvision": {"models.vision", "pipeline.stages.doctor"},
    "click": set(),
}
HEAVY = (
    "torch",
    "torchvision",
    "decord",
    "av",
    "cv2",
    "dask",
    "distributed",
    "h5py",
    "tornado",
    "matplotlib",
    "pandas",
    "scipy",
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """The room a module lies in: itself or the nearest package that has a floor."""
    parts = module.split(".")
    while parts and ".".join(parts) not in FLOOR:
        parts.pop()
    return ".".join(parts)


def imports(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Line, absolute name and whether it is ours, of each import wherever it stands in the file."""
    package = list(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
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
def test_imports_go_down(path: Path) -> None:
    here = room_of(module_name(path))
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for line, name, ours in imports(path)
        if ours and room_of(name) != here and FLOOR[room_of(name)] <= FLOOR[here]
    ]
    assert not wrong


@pytest.mark.parametrize("path", [path for path in PACKAGE if path.parent.name == "models"], ids=module_name)
def test_the_network_knows_nothing_of_files_and_settings(path: Path) -> None:
    wrong = [name for _, name, ours in imports(path) if ours and room_of(name) not in ("models", "pipeline.errors")]
    assert not wrong


@pytest.mark.parametrize("path", PACKAGE, ids=module_name)
def test_every_foreign_library_has_its_door(path: Path) -> None:
    module = module_name(path)
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for line, name, ours in imports(path)
        if not ours and module not in DOORS.get(name.split(".")[0], {module})
    ]
    assert not wrong


@pytest.mark.parametrize("path", PACKAGE, ids=module_name)
def test_nothing_is_unpickled(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
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
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
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


def loaded_by(*arguments: str) -> set[str]:
    """The heavy libraries that a command imports."""
    code = (
        "import sys\nfrom affect.cli import app\nsys.argv = ['affect', *sys.argv[1:]]\n"
        f"try:\n    app()\nfinally:\n    print(*[m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["version"], ["config", "show"]], ids=" ".join)
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    assert not loaded_by(*arguments)


def test_help_is_quick() -> None:
    """Under 0.3 s on an idle machine. Others may be at work here too, so it is the processor's time, the best of
    several."""
    best = 9.0
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "affect", "--help"], capture_output=True, check=True, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert best < 0.6
