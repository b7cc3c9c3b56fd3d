"""Messages and progress on stderr: a bar with rate and time left on a terminal, otherwise one line per item."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from .names import shown


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        unit = task.fields.get("unit", "")
        return Text(f"{task.speed:,.1f} {unit}/s" if task.speed else "", style="cyan")


class Tracker:
    """Returned by Reporter.progress: call `advance` for each unit of work done."""

    def __init__(self, reporter: "Reporter", title: str, total: int | None, unit: str, bar: Progress | None) -> None:
        self._reporter, self._title, self._total, self._bar = reporter, shown(title), total, bar
        self._done = 0
        self._task = bar.add_task(self._title, total=total, unit=unit, note="") if bar else None

    def advance(self, n: int = 1, item: str = "") -> None:
        """Records n finished units. Without a bar, `item` is printed as a line."""
        self._done += n
        if self._bar and self._task is not None:
            self._bar.update(self._task, advance=n, note=shown(item))
        elif item:
            of = f"{self._done}/{self._total}" if self._total else f"{self._done}"
            self._reporter.info(f"{self._title} {of}  {item}")

    def note(self, text: str) -> None:
        """Text beside the bar. Not printed without a bar."""
        if self._bar and self._task is not None:
            self._bar.update(self._task, note=shown(text))


@dataclass
class Reporter:
    """How a stage reports to the user. Everything goes to stderr; data goes to stdout elsewhere."""

    quiet: bool = False
    verbose: bool = False
    silent: bool = False
    """No warnings either: another process prints them."""

    def __post_init__(self) -> None:
        self.console = Console(stderr=True, emoji=False, highlight=False, soft_wrap=True)

    def info(self, text: str) -> None:
        if not self.quiet:
            self.console.print(shown(text), markup=False)

    def debug(self, text: str) -> None:
        """Printed only with --verbose."""
        if self.verbose and not self.quiet:
            self.console.print(shown(text), markup=False, style="dim")

    def warning(self, text: str) -> None:
        """Printed even with --quiet."""
        if not self.silent:
            self.console.print(shown(text), markup=False, style="yellow")

    @contextmanager
    def progress(self, title: str, total: int | None = None, unit: str = "") -> Iterator[Tracker]:
        """A bar of `total` units of work, named `unit` (plural)."""
        if self.quiet or not self.console.is_terminal:
            yield Tracker(self, title, total, unit, None)
            return
        columns = (
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), _Rate(),
            TimeRemainingColumn(), TextColumn("{task.fields[note]}", style="dim", markup=False),
        )  # fmt: skip
        with Progress(*columns, console=self.console, transient=True) as bar:
            yield Tracker(self, title, total, unit, bar)
