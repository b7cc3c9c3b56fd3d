"""predict: valence and arousal of any video, a row per frame, a row per clip, a picture, and the video with both drawn
over it."""

import contextlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from ...configs.schema import Config, load
from ..errors import InputError, InUseError, MissingStageError, WeightsError
from ..learning.model_file import model_path, read_model_metadata
from ..progress import Talk
from ..records import Problem, StageReport
from ..storage.fingerprint import fingerprint, source_digest
from .arrivals import Watch
from .outputs import FACTS, OVERLAY, PLOT, Recorded, claimed, find_videos, output_names, recorded, remove_others
from .tables import clip_file, frame_file, need_format
from .trace import Trace, in_words, make_trace
from .trace_plot import draw_traces

if TYPE_CHECKING:
    from ..learning.network import Network

STAGE = "predict"
VERSION = 2
EMOTIONS = 8
MOST_PEOPLE = 4
MANY = 12
"""Videos from which each is summed up in one line."""
REMEDY = "Name a run folder, W/train/NAME; `affect train --data D --work W` makes one."


def predict(
    config: Config,
    videos: Sequence[Path],
    model: Path | Sequence[Path],
    out: Path,
    talk: Talk,
    *,
    emotions: bool = False,
    people: int = 1,
    format: str = "csv",  # noqa: A002
    plot: bool = True,
    overlay: bool = False,
    watch: Watch | None = None,
) -> StageReport:
    """Writes <video>.csv, <video>.clips.csv, <video>.png and <video>.facts.json into `out` for each video.

    videos: files, folders (all videos below them) or glob patterns. model: a run folder or its model file; it says how
    large the frames and how long the clips are, the config says the rest. Of several models the values are averaged;
    faces, boxes, emotions and clips are those of the first. emotions: adds the backbone's eight classes.
    people: how many to follow in each video. format: of the tables, one of tables.FORMATS. plot: the PNG. overlay: also
    <video>.overlay.mp4. watch: is told of frames as their values become final, before those without a face are seen to;
    of several people, of the first. A video that cannot be read is in `failed`. Several processes may write into one
    `out`: a video that another one is at comes last, and is kept if it is done by then. Raises MissingStageError,
    WeightsError, DeviceError, WorkError; InputError for a format or a number of people that cannot be had.
    """
    need_format(format)
    models = [model] if isinstance(model, Path) else list(dict.fromkeys(model))
    classes, *_ = [check_model(path, talk, emotions=emotions, people=people) for path in models]
    digest = [read_model_metadata(path)["fingerprint"] for path in models]
    wanted = (f".{format}", f".clips.{format}", *([PLOT] if plot else []), *([OVERLAY] if overlay else []))
    files, failed = find_videos(videos)
    made, kept, facts = [], [], {}
    network: Network | None = None
    queue = [(number, name, path, False) for number, (name, path) in enumerate(output_names(files, out), 1)]
    for number, planned, path, wait in queue:
        title = f"{STAGE} {number}/{len(files)}  {planned}" if len(files) > 1 else f"{STAGE} {planned}"
        try:
            key = fingerprint(
                version=VERSION, model=digest, source=source_digest(path), predict=config.predict,
                clip=[config.clip.hop, config.clip.carry], precision=config.runtime.precision, emotions=emotions,
                people=people,
            )  # fmt: skip
            name, known = planned, recorded(out, planned)
            if not _is_done(known, key, wanted):
                with claimed(out, planned, path, wait=wait) as name:
                    known = recorded(out, name)
                    if not _is_done(known, key, wanted):  # as nobody else has done it meanwhile
                        network = network or _network(models, config)
                        began = time.perf_counter()
                        traces = trace_video(
                            network, path, talk, name=name, title=title, classes=classes, people=people, told=watch
                        )
                        rate = len(traces[0]) / (time.perf_counter() - began)
                        others = known.suffixes if known is not None and known.key == key else ()
                        remove_others(out, name, known, others)
                        _write(traces, out, name, wanted, talk, f"{title}: overlay", config)
                        told, suffixes = _facts(traces, rate), tuple(dict.fromkeys((*others, *wanted)))
                        known = Recorded(out / name, key, path.resolve(), told, suffixes, network.environment())
                        known.save()
                        talk.say(f"{title}: {len(traces[0])} frames, {rate:,.1f} frames/s")
                        _say(traces, talk, one_line=len(files) >= MANY)
                        made.append(name)
            if name not in made:
                kept.append(name)
            _remark(name, known.facts, people, talk)
            facts[name] = known.facts
        except InUseError:
            talk.say(f"{title}: another process is at it, so it comes last")
            queue.append((number, planned, path, True))
        except InputError as error:
            failed.append(Problem("damaged", planned, error.problem, error.remedy))
            _forget(out, planned, path)
    return StageReport(STAGE, out, tuple(made), tuple(kept), tuple(failed), facts)


def _is_done(known: Recorded | None, key: str, wanted: Sequence[str]) -> TypeGuard[Recorded]:
    return known is not None and known.key == key and known.has(wanted)


def _forget(out: Path, name: str, path: Path) -> None:
    """Removes what an earlier run made of a video that can no longer be read, unless another process is at it."""
    known = recorded(out, name)
    if known is not None and (known.source == path.resolve() or not known.source.exists()):
        with contextlib.suppress(InUseError), claimed(out, name, path, wait=False) as own:
            if own == name:
                remove_others(out, name, known, (), mark=True)


def settings_for(model: Path, overrides: Sequence[str] = (), config: str | None = None) -> Config:
    """The settings to use a model with: of `config`, else those of its run, with overrides. Raises MissingStageError,
    WeightsError, ConfigError."""
    file = model_path(model)
    if not file.is_file():
        raise MissingStageError(f"{file}: there is no model", REMEDY)
    beside = file.parent / "config.yaml"
    if config is None and beside.is_file():
        config = str(beside)
    if config is not None:
        return load(config, overrides)
    return load("demo", (*_spelled(Config.model_validate(read_model_metadata(model)["config"])), *overrides))


def check_model(model: Path, talk: Talk, *, emotions: bool, people: int) -> tuple[str, ...]:
    """Whether the model can do what is asked, without loading it. Returns the names of the emotions that are asked for.
    Raises MissingStageError, WeightsError, InputError."""
    if not model_path(model).is_file():
        raise MissingStageError(f"{model_path(model)}: there is no model", REMEDY)
    if not 1 <= people <= MOST_PEOPLE:
        raise InputError(f"{people} people", f"Allowed: 1 to {MOST_PEOPLE}.")
    metadata = read_model_metadata(model)
    localiser = metadata["config"]["stn"]["localiser"]
    if people > 1 and localiser != "stn":
        raise InputError(
            f"{model} was trained with stn.localiser {localiser} and cannot tell people apart",
            "Ask for one person, or train with stn.localiser=stn.",
        )
    if localiser in ("box", "aligned"):
        talk.warn(
            f"{model} was trained with stn.localiser {localiser} and cannot find faces by itself: "
            "it looks at the whole picture, and will be the poorer for it"
        )
    classes = tuple(metadata["backbone"]["classes"]) if emotions else ()
    if emotions and len(classes) != EMOTIONS:
        raise WeightsError(
            f"{model}: its backbone knows {len(classes)} classes, expected {EMOTIONS} emotions",
            "Leave out emotions, or train on a backbone of `affect pretrain backbone`.",
        )
    return classes


def trace_video(
    network: "Network", path: Path, talk: Talk, *, name: str = "", title: str = "", classes: Sequence[str] = (),
    people: int = 1, told: Watch | None = None,
) -> list[Trace]:  # fmt: skip
    """The traces of a video's people, from left to right, as many as were found. classes: of the emotions, where they
    are asked for. told: of the first one's values as they come. Raises VideoError."""
    from .watching import watch

    predictions = watch(path, network, talk, title or path.stem, people=people, emotions=bool(classes), told=told)
    return [
        make_trace(
            prediction, network.config, path, name=name, classes=classes, clip=network.clip,
            person=number if people > 1 else None,
        )
        for number, prediction in enumerate(predictions)
    ]  # fmt: skip


def _network(models: Sequence[Path], config: Config) -> "Network":
    from ..learning.network import Network

    return Network(models, config)


def _write(
    traces: Sequence[Trace], out: Path, name: str, wanted: Sequence[str], talk: Talk, title: str, config: Config
) -> None:
    """The files of one video, but for the facts, which say that all others are there."""
    (out / f"{name}{FACTS}").unlink(missing_ok=True)
    form = wanted[0].removeprefix(".")
    frame_file(out / f"{name}{wanted[0]}", traces, form)
    clip_file(out / f"{name}{wanted[1]}", traces, form)
    if PLOT in wanted:
        draw_traces(traces, out / f"{name}{PLOT}")
    if OVERLAY in wanted:
        from .overlay_film import film_overlay

        film_overlay(out / f"{name}{OVERLAY}", traces, talk, title, deadline=config.runtime.decode_seconds)


def _facts(traces: Sequence[Trace], rate: float) -> dict[str, Any]:
    """Of one person their summary; of several that of each, and of the first what a reader of one expects."""
    facts = {**traces[0].summary(), "frames_per_second": round(rate, 2)}
    if traces[0].person is not None:
        facts["people"] = [trace.summary() for trace in traces]
    return facts


def _say(traces: Sequence[Trace], talk: Talk, *, one_line: bool) -> None:
    for line in in_words(traces):
        if not one_line:
            talk.say(line)


def _remark(name: str, facts: dict[str, Any], people: int, talk: Talk) -> None:
    if not facts["face_share"]:
        talk.warn(f"{name}: no face in any frame, so there are no values. Lower predict.face_threshold to have some.")
    if facts["lost"]:
        talk.warn(f"{name}: {facts['lost']} frames cannot be decoded and have no row")
    if people > len(facts.get("people", ())) and people > 1:
        talk.warn(f"{name}: {len(facts['people'])} of {people} people found")


def _spelled(config: Config) -> list[str]:
    """All settings as overrides."""
    sections = config.model_dump(mode="json")
    return [
        f"{section}.{key}={json.dumps(value)}"
        for section, values in sections.items() if isinstance(values, dict) for key, value in values.items()
    ]  # fmt: skip
