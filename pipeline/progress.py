"""Progress of long work: a bar with rate and time left on a terminal, a plain line per item elsewhere. To stderr."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        unit = task.fields.get("unit", "")
        return Text(f"{task.speed:,.1f} {unit}/s" if task.speed else "", style="cyan")


class Tracker:
    """Handed out by Talk.track: say `advance` for each unit of work done."""

    def __init__(self, talk: "Talk", title: str, total: int | None, unit: str, bar: Progress | None) -> None:
        self._talk, self._title, self._total, self._bar = talk, title, total, bar
        self._done = 0
        self._task = bar.add_task(title, total=total, unit=unit, note="") if bar else None

    def advance(self, n: int = 1, item: str = "") -> None:
        """n units are done. `item`, if given, is printed as a line of its own where there is no bar."""
        self._done += n
        if self._bar and self._task is not None:
            self._bar.update(self._task, advance=n, note=item)
        elif item:
            of = f"{self._done}/{self._total}" if self._total else f"{self._done}"
            self._talk.say(f"{self._title} {of}  {item}")

    def note(self, text: str) -> None:
        """A remark beside the bar; not printed where there is no bar."""
        if self._bar and self._task is not None:
            self._bar.update(self._task, note=text)


@dataclass
class Talk:
    """How a stage talks to whoever waits for it. Everything goes to stderr; data goes to stdout elsewhere."""

    quiet: bool = False
    verbose: bool = False
    silent: bool = False
    """Not even warnings: another process says the same."""

    def __post_init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        if not self.quiet:
            self.console.print(text, markup=False)

    def detail(self, text: str) -> None:
        """Said only with --verbose."""
        if self.verbose and not self.quiet:
            self.console.print(text, markup=False, style="dim")

    def warn(self, text: str) -> None:
        """Said even with --quiet."""
        if not self.silent:
            self.console.print(text, markup=False, style="yellow")

    @contextmanager
    def track(self, title: str, total: int | None = None, unit: str = "") -> Iterator[Tracker]:
        """A bar of `total` units of work, named `unit` (plural)."""
        if self.quiet or not self.console.is_terminal:
            yield Tracker(self, title, total, unit, None)
            return
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
        )  # fmt: skip
        with Progress(*columns, console=self.console, transient=True) as bar:
            yield Tracker(self, title, total, unit, bar)
