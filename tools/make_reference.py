"""Writes the reference pages from the commands and the config schema: `python tools/make_reference.py`.

With --check it writes nothing and exits with code 1 if a page is out of date.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from affect.cli import ORDER, app
from affect.configs.schema import Config, Section
from pydantic.fields import FieldInfo
from typer.main import get_command

OUT = Path(__file__).parent.parent / "docs" / "reference"
MADE = "<!-- Made by tools/make_reference.py. Change the code, not this page. -->"
COMMANDS = """\
Each command has `--help` with an example. Results go to files, requested data to stdout, messages to stderr. Exit
codes: 0 done, 1 an error with its remedy, 2 wrong usage, 3 done except for the inputs listed, 130 interrupted."""
SETTINGS = """\
All settings with their defaults. `affect config show` prints the current ones, and `--set section.key=value` overrides
one. The configs `demo`, `affwild2` and `seed` change some of them."""
RANGES = {
    "ge": "at least {}",
    "gt": "above {}",
    "le": "at most {}",
    "lt": "below {}",
    "multiple_of": "a multiple of {}",
}


def commands_page() -> str:
    group: Any = get_command(app)
    parts = ["# Commands", MADE, COMMANDS]
    for name in sorted(group.commands, key=ORDER.index):
        parts += _command(f"affect {name}", group.commands[name])
    return "\n\n".join(parts) + "\n"


def _command(name: str, command: Any) -> Iterator[str]:
    if hasattr(command, "commands"):
        for inner, own in command.commands.items():
            yield from _command(f"{name} {inner}", own)
        return
    yield f"## `{name}`"
    yield " ".join((command.help or "").split())
    if command.epilog:
        yield f"    {command.epilog.removeprefix('Example: ')}"
    rows = [_option(parameter) for parameter in command.params if not getattr(parameter, "hidden", False)]
    if rows:
        yield "\n".join(["| option | default | |", "|---|---|---|", *rows])


def _option(parameter: Any) -> str:
    metavar = parameter.metavar or "VALUE"
    argument = not parameter.opts[0].startswith("-")
    shown = metavar if argument else ", ".join(parameter.opts) + ("" if parameter.is_flag else f" {metavar}")
    default = parameter.default
    no_default = default is None or default is False or default == [] or callable(default)
    cell = "needed" if parameter.required else "" if no_default else f"`{default}`"
    return f"| `{shown}` | {cell} | {_cell(getattr(parameter, 'help', None) or '')} |"


def settings_page() -> str:
    parts = ["# Settings", MADE, SETTINGS]
    for name, field in Config.model_fields.items():
        section = field.annotation
        if not (isinstance(section, type) and issubclass(section, Section)):
            continue
        parts.append(f"## `{name}`")
        own = section.__doc__ if section.__doc__ != Section.__doc__ else None
        if own:
            parts.append(" ".join(own.split()))
        rows = [
            f"| `{name}.{key}` | `{_shown(inner.default)}` | {_allowed(inner)} | {_cell(inner.description or '')} |"
            for key, inner in section.model_fields.items()
        ]
        parts.append("\n".join(["| key | default | allowed | |", "|---|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def _shown(default: Any) -> str:
    if default is None or isinstance(default, bool):
        return {None: "none", True: "true", False: "false"}[default]
    return str(list(default)) if isinstance(default, tuple) else str(default)


def _allowed(field: FieldInfo) -> str:
    kind = field.annotation
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    ranges = [
        text.format(f"{getattr(limit, attribute):g}")
        for limit in field.metadata
        for attribute, text in RANGES.items()
        if getattr(limit, attribute, None) is not None
    ]
    return " and ".join(ranges)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


PAGES = {"commands.md": commands_page, "settings.md": settings_page}


def main() -> int:
    stale = []
    for name, make in PAGES.items():
        path, text = OUT / name, make()
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(text, encoding="utf-8")
    print(f"{'stale' if '--check' in sys.argv else 'written'}: {', '.join(stale) or 'none'}")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
