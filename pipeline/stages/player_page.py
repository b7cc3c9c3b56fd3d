"""player: a page of its own for each predicted video, that plays in step with its traces: `affect predict --report`."""

import re
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path

from ... import __version__
from ...configs.schema import Config
from ..errors import InputError
from ..progress import Talk
from ..records import Problem, StageReport
from ..storage.fingerprint import fingerprint
from .player import FACTS, NO_SCRIPT, Clip, as_json, clip_script, moments, read_clip, with_film
from .report_html import assets, facts_list, number, whole_page
from .runs import write_text

STAGE = "player"
VERSION = 1
STYLES = ("page.css", "player.css")
SCRIPTS = ("basics.js", "player.js", "players.js")
MARK = re.compile(r"<!-- made from ([0-9a-f]+) -->\s*$")


def player_pages(config: Config, names: Sequence[str], folder: Path, talk: Talk) -> StageReport:
    """Writes <name>.html for each of these predicted videos of `folder`, beside what `predict` left of it.

    One that cannot be read is in `failed`. Raises WorkError where the folder cannot be written.
    """
    made, kept, failed = [], [], []
    for name in names:
        page = folder / f"{name}.html"
        try:
            key = fingerprint(
                version=VERSION, tool=__version__, report=config.report, threshold=config.predict.face_threshold,
                facts=_text(folder / f"{name}{FACTS}"), table=str((folder / f"{name}.csv").stat().st_mtime_ns),
                assets=assets(*STYLES, *SCRIPTS),
            )  # fmt: skip
            if _key_of(page) == key:
                kept.append(name)
                continue
            start = time.perf_counter()
            clip = with_film(read_clip(folder, name, config.predict.face_threshold), most_bytes(config))
            write_text(page, f"{page_of(clip)}<!-- made from {key} -->\n")
            talk.detail(f"{STAGE} {name}: {page.stat().st_size / 1e6:.1f} MB, {time.perf_counter() - start:.1f} s")
            made.append(name)
        except (InputError, OSError) as error:
            failed.append(_problem(name, error))
    _sweep(folder)
    return StageReport(STAGE, folder, tuple(made), tuple(kept), tuple(failed))


def most_bytes(config: Config) -> int:
    return int(config.report.video_mib * 2**20)


def page_of(clip: Clip) -> str:
    """The page of one clip."""
    facts = clip.facts
    best = moments(clip)
    lively = f"{clip.time[best['liveliest']]:.1f} s" if best else None
    told = {
        "frames": len(clip.time),
        "frames per second": round((len(clip.time) - 1) / max(float(clip.time[-1] - clip.time[0]), 1e-9), 2)
        if len(clip.time) > 1
        else None,
        "frames with a face": f"{facts['face_share']:.0%}" if facts.get("face_share") is not None else None,
        **{f"{name} of {what}": number(facts.get(f"{what}_{name}"), 2)
           for what in ("valence", "arousal") for name in ("mean", "min", "max")},
        "liveliest moment": lively,
        "frames that could not be decoded": facts.get("lost", 0),
    }  # fmt: skip
    body = (
        f'<header class="slim"><p class="kicker">affect</p><h1>{escape(clip.name)}</h1></header><main>'
        f'<div class="players" data-keys="page">{clip_script(as_json(clip))}{NO_SCRIPT}</div>'
        f"<section><h2>In numbers</h2>{facts_list(told)}</section>"
        '<section><h2>How to read it</h2><p><b class="valence">Valence</b> says how pleasant a face looks, '
        '<b class="arousal">arousal</b> how awake, both from −1 to 1. They are what people who watch faces would say '
        "of this one, as far as the model learned it; not what the person felt. Where no face is seen, the trace "
        "follows the policy that was asked for, on a grey ground.</p></section></main>"
        f"<footer>affect {escape(__version__)} · made by <code>affect predict --report</code></footer>"
    )
    return whole_page(clip.name, body, style=assets(*STYLES), script=assets(*SCRIPTS))


def _sweep(folder: Path) -> None:
    """Takes away pages of ours whose predictions are gone."""
    for page in folder.glob("*.html"):
        if not page.with_suffix(FACTS).is_file() and _key_of(page):
            page.unlink(missing_ok=True)


def _key_of(page: Path) -> str | None:
    try:
        with page.open("rb") as file:
            file.seek(max(0, page.stat().st_size - 200))
            found = MARK.search(file.read().decode("utf-8", "ignore"))
    except OSError:
        return None
    return found[1] if found else None


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _problem(name: str, error: InputError | OSError) -> Problem:
    if isinstance(error, InputError):
        return Problem("damaged", name, error.problem, error.remedy)
    return Problem("missing", name, f"has no prediction here ({error.strerror})", "Run `affect predict` on it.")
