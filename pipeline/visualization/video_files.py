"""All output files of one predicted video: tables, plot, overlay, record and page."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...configs.schema import Config
from ..faults import one_input
from ..inference.outputs import FACTS, OVERLAY, PLOT, Recorded, remove_others
from ..inference.tables import clip_file, frame_file
from ..inference.trace import TraceData
from ..progress import Reporter
from ..records import Problem
from .clip_page import write_page
from .trace_plot import draw_traces


@dataclass(frozen=True)
class FileTask:
    """What to write. record: of the video; its suffixes are those of the files to write, the two tables first. old:
    what an earlier run wrote under this name. format: of the tables. page: also the HTML page. title: for progress."""

    record: Recorded
    old: Recorded | None
    format: str
    page: bool
    title: str
    config: Config

    @property
    def draws(self) -> bool:
        """Whether pictures or videos are drawn. Writing the tables alone takes little time."""
        return self.page or len(self.record.suffixes) > 2


@dataclass
class FileResult:
    """record: None if the tables could not be written. failed: the faults. page: the faults of the page, None if there
    is no page. warnings: to show to the user."""

    record: Recorded | None = None
    failed: list[Problem] = field(default_factory=list)
    page: list[Problem] | None = None
    warnings: list[str] = field(default_factory=list)


def write_files(task: FileTask, traces: Sequence[TraceData], reporter: Reporter) -> FileResult:
    """Writes the files of one video, its record after all others except the page.

    If the plot or the overlay cannot be drawn, the other files are written. Raises WorkError for faults that concern
    all videos.
    """
    result = FileResult()
    name, out = task.record.base.name, task.record.base.parent
    with one_input(name, result.failed):
        still_valid = task.old.suffixes if task.old is not None and task.old.key == task.record.key else ()
        remove_others(out, name, task.old, still_valid)
        written = _write(task, traces, reporter, result.failed)
        record = replace(task.record, suffixes=tuple(dict.fromkeys((*still_valid, *written))))
        record.save()
        result.record = record
    if task.page and result.record is not None:
        result.page = []
        with one_input(name, result.page, part="its page cannot be written"):
            write_page(task.config, name, out, reporter)
    return result


def write_files_quietly(task: FileTask, traces: Sequence[TraceData]) -> FileResult:
    """`write_files` in another process: without a progress bar, and with the warnings in the result."""
    reporter = _Collector(quiet=True)
    result = write_files(task, traces, reporter)
    result.warnings += reporter.warnings
    return result


def _write(task: FileTask, traces: Sequence[TraceData], reporter: Reporter, failed: list[Problem]) -> tuple[str, ...]:
    """Writes all files except the record, and returns their suffixes."""
    base = task.record.base
    frames, clips, *drawn = task.record.suffixes
    # The record says that all other files are there, so it is removed first and written last.
    _file(base, FACTS).unlink(missing_ok=True)
    frame_file(_file(base, frames), traces, task.format)
    clip_file(_file(base, clips), traces, task.format)
    written = [frames, clips]
    if PLOT in drawn:
        with one_input(base.name, failed, part="its tables are written, but not the plot"):
            draw_traces(traces, _file(base, PLOT))
            written.append(PLOT)
    if OVERLAY in drawn:
        from .overlay_video import write_overlay_video

        deadline = task.config.runtime.decode_seconds
        with one_input(base.name, failed, part="its tables are written, but not the overlay"):
            write_overlay_video(_file(base, OVERLAY), traces, reporter, f"{task.title}: overlay", deadline=deadline)
            written.append(OVERLAY)
    return tuple(written)


def _file(base: Path, suffix: str) -> Path:
    return base.with_name(f"{base.name}{suffix}")


@dataclass
class _Collector(Reporter):
    """Keeps the warnings instead of printing them."""

    warnings: list[str] = field(default_factory=list)

    def warning(self, text: str) -> None:
        self.warnings.append(text)
