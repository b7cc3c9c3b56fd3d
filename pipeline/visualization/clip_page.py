"""The page of each predicted video, with a player: `affect predict --report`."""

import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...configs.schema import Config
from ..errors import InputError
from ..faults import one_input
from ..names import shown
from ..progress import Reporter
from ..records import Problem, StageReport
from ..storage.atomic import write_text
from ..storage.fingerprint import fingerprint
from ..version import __version__
from .clip import FACTS, Clip, as_json, moments, read_clip, with_web_video
from .html import PLAYER_SCRIPTS, assets, number, render, template_texts

STAGE = "player"
VERSION = 1
STYLES = ("page.css", "player.css")
SCRIPTS = (*PLAYER_SCRIPTS, "players.js")
KEY_COMMENT = re.compile(r"<!-- fingerprint ([0-9a-f]+) -->\s*$")


def player_pages(
    config: Config,
    names: Sequence[str],
    folder: Path,
    reporter: Reporter,
    written: Mapping[str, Sequence[Problem]] | None = None,
) -> StageReport:
    """Writes <name>.html for each of these predicted videos in `folder`.

    written: the faults of pages that this run has already made, by name. Videos whose prediction cannot be read are in
    `failed`. Raises WorkError if the folder cannot be written.
    """
    written = written or {}
    made: list[str] = []
    kept: list[str] = []
    failed: list[Problem] = []
    for name in names:
        if name in written:
            failed += written[name]
            if not written[name]:
                made.append(name)
            continue
        with one_input(name, failed, part="its page cannot be written"):
            (made if write_page(config, name, folder, reporter) else kept).append(name)
    _remove_stale(folder)
    return StageReport(STAGE, folder, tuple(made), tuple(kept), tuple(failed))


def write_page(config: Config, name: str, folder: Path, reporter: Reporter) -> bool:
    """Writes the page of a predicted video. Returns False if it is up to date. Raises InputError, WorkError."""
    page = folder / f"{name}.html"
    key = fingerprint(
        version=VERSION, tool=__version__, report=config.report, threshold=config.predict.face_threshold,
        facts=_text(folder / f"{name}{FACTS}"), table=str((folder / f"{name}.csv").stat().st_mtime_ns),
        assets=assets(*STYLES, *SCRIPTS) + template_texts(),
    )  # fmt: skip
    if _key_of(page) == key:
        return False
    start = time.perf_counter()
    clip = read_clip(folder, name, config.predict.face_threshold)
    clip = with_web_video(clip, max_video_bytes(config), reporter)
    write_text(page, f"{render_clip(clip)}<!-- fingerprint {key} -->\n")
    reporter.debug(f"{STAGE} {name}: {page.stat().st_size / 1e6:.1f} MB, {time.perf_counter() - start:.1f} s")
    return True


def max_video_bytes(config: Config) -> int:
    return int(config.report.video_mib * 2**20)


def render_clip(clip: Clip) -> str:
    """The HTML page of a clip."""
    facts = clip.facts
    rows = moments(clip)
    liveliest = f"{clip.time[rows['highest arousal']]:.1f} s" if rows else None
    numbers = {
        "frames": len(clip.time),
        **({"frames seen by the model": facts["sampled"]} if "sampled" in facts else {}),
        "frames per second": round((len(clip.time) - 1) / max(float(clip.time[-1] - clip.time[0]), 1e-9), 2)
        if len(clip.time) > 1
        else None,
        "frames with a face": f"{facts['face_share']:.0%}" if facts.get("face_share") is not None else None,
        **{f"{name} of {what}": number(facts.get(f"{what}_{name}"), 2)
           for what in ("valence", "arousal") for name in ("mean", "min", "max")},
        **{f"width of the interval of {what}": number(facts[f"{what}_width"], 2)
           for what in ("valence", "arousal") if facts.get(f"{what}_width") is not None},
        "highest arousal at": liveliest,
        "farther from the training data than": f"{math.floor(facts['training_percentile'])} % of new people"
        if facts.get("training_percentile") is not None
        else None,
        "frames that could not be decoded": facts.get("lost", 0),
    }  # fmt: skip
    return render(
        "clip.html", title=shown(clip.name), clip=as_json(clip), numbers=numbers, level=f"{clip.level or 0:.0%}",
        style=assets(*STYLES), script=assets(*SCRIPTS),
    )  # fmt: skip


def _remove_stale(folder: Path) -> None:
    """Removes pages that affect made and whose prediction is gone."""
    for page in folder.glob("*.html"):
        if not page.with_suffix(FACTS).is_file() and _key_of(page):
            page.unlink(missing_ok=True)


def _key_of(page: Path) -> str | None:
    try:
        with page.open("rb") as file:
            file.seek(max(0, page.stat().st_size - 200))
            match = KEY_COMMENT.search(file.read().decode("utf-8", "ignore"))
    except OSError:
        return None
    return match[1] if match else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"there is no prediction ({error.strerror})", "Run `affect predict` on the video.") from error
