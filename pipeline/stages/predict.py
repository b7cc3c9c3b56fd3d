"""affect predict: valence and arousal of videos, as tables per frame and per clip, plots and overlays; and of pictures,
as one table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...configs.schema import Config
from ..errors import InputError
from ..inference.inputs import find_inputs
from ..inference.load import check_model
from ..inference.outputs import TABLES_AND_PLOT, PredictOptions, output_names
from ..inference.partial_results import OnFrames
from ..inference.picture_table import PICTURES
from ..inference.tables import require_format
from ..inference.unlike import judge_people
from ..progress import Reporter
from ..records import Problem, StageReport
from ..visualization.predicted_videos import Job, PredictionWriter

STAGE = "predict"
MANY_VIDEOS = 12
"""From this number on, each video is summed up in one line."""
ONE_PERSON = "a picture has one row, for its most likely face"


def predict(
    config: Config,
    videos: Sequence[Path],
    model: Path | Sequence[Path],
    out: Path,
    reporter: Reporter,
    options: PredictOptions = TABLES_AND_PLOT,
    *,
    on_frames: OnFrames | None = None,
    pages: dict[str, list[Problem]] | None = None,
) -> StageReport:
    """Writes the tables, the plot and <video>.facts.json of each video into `out`, and one table of all pictures.

    videos: files, folders (all videos below them, or all pictures if there is no video) or glob patterns. model: a run
    folder or its model file. It sets the frame size and the clip length; `config` sets the rest. The values of several
    models are averaged; faces, boxes, emotions and clips are those of the first. on_frames: called with the values of
    the first person as they become final, before frames without a face are treated. pages: if given, the HTML page of
    each predicted video is written too, and its faults are added here, by name.

    A video or picture that cannot be read is in `failed`. So is one whose plot or overlay cannot be drawn, but its
    tables are written. Several processes may write into one `out`: a video that another process is writing comes last.
    Raises MissingStageError, WeightsError, DeviceError, WorkError, and InputError for an unknown format, too many
    people, or pictures with more than one person.
    """
    require_format(options.format)
    models = [model] if isinstance(model, Path) else list(dict.fromkeys(model))
    classes, *_ = [check_model(it, reporter, emotions=options.emotions, people=options.people) for it in models]
    inputs = find_inputs(videos)
    if inputs.pictures and options.people > 1:
        problem = f"--people {options.people} with pictures, such as {inputs.pictures[0].path}: {ONE_PERSON}"
        raise InputError(problem, "Predict the pictures without --people, in a call of their own.")
    for problem in inputs.problems:
        if problem.kind == "note":
            reporter.warning(f"{problem}")
    files = inputs.videos
    made, kept, facts = [], [], {}
    with PredictionWriter(config, models, classes, out, reporter, options, on_frames, pages) as writer:
        writer.failed += [problem for problem in inputs.problems if problem.kind != "note"]
        writer.brief = len(files) >= MANY_VIDEOS
        if inputs.pictures:  # first, so that no video takes the name of the table
            known, new = writer.run_pictures(inputs.pictures)
            if known is not None:
                (made if new else kept).append(PICTURES)
                facts[PICTURES] = known.facts
        jobs = []
        for number, (name, path) in enumerate(output_names(files, out), 1):
            title = f"{STAGE} {number}/{len(files)}  {name}" if len(files) > 1 else f"{STAGE} {name}"
            jobs.append(Job(name, path, title))
        for name, known, new in writer.run(jobs):
            (made if new else kept).append(name)
            facts[name] = known.facts
            _warn(name, known.facts, options.people, reporter)
    return StageReport(STAGE, out, tuple(made), tuple(kept), tuple(writer.failed), facts)


def _warn(name: str, facts: dict[str, Any], people: int, reporter: Reporter) -> None:
    if not facts["face_share"]:
        reporter.warning(f"{name}: no face in any frame, so there are no values. Try a lower predict.face_threshold.")
    if facts["lost"]:
        reporter.warning(f"{name}: {facts['lost']} frames cannot be decoded and have no row")
    for person, text in judge_people(facts):
        reporter.warning(f"{name}{person}: {text}")
    if people > 1 and people > len(facts.get("people", ())):
        reporter.warning(f"{name}: {len(facts['people'])} of {people} people found")
