"""Commands of affect under observation, or where something is missing. They print what the command prints."""

import json
import sys
from pathlib import Path


def traced(report: str, *arguments: str) -> None:
    """Runs a command and writes JSON to the file `report`: the top-level names of the libraries that the command
    imported, and the commands of the processes that it started."""
    before, started = set(sys.modules), []

    def note(event: str, values: tuple[object, ...]) -> None:
        if event == "subprocess.Popen":
            started.append(str(values[1]))

    sys.addaudithook(note)
    try:
        _run(arguments)
    finally:
        libraries = {name.split(".")[0] for name in sys.modules.keys() - before} - sys.stdlib_module_names - {"affect"}
        Path(report).write_text(json.dumps({"libraries": sorted(libraries), "processes": started}), encoding="utf-8")


def without_packages(packages: str, *arguments: str) -> None:
    """Runs a command where the packages (comma-separated) are not installed."""
    names = packages.split(",")

    class Missing:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name.split(".")[0] in names:
                raise ImportError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Missing())
    _run(arguments)


def without_temporary_folder(*arguments: str) -> None:
    """Runs a command where no temporary folder of the system can be written."""
    import tempfile

    setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nowhere/tmp"])  # noqa: B010  (not in its type stub)
    _run(arguments)


def installed(*arguments: str) -> None:
    """Runs a command as the installed program `affect` does."""
    _run(arguments)


def _run(arguments: tuple[str, ...]) -> None:
    from affect.cli import app

    sys.argv = ["affect", *arguments]
    app(prog_name="affect")
