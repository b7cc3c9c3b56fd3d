"""cache-features: every frame once through STN and backbone, into one feature shard a subject.

Frames come from the frame shards; where a video has none, from the video itself. The work is spread over Dask workers
by path and settings; each loads the networks once.
"""

from dataclasses import replace
from pathlib import Path

from ...configs.schema import Config
from ..cluster import run_tasks, worker_count
from ..errors import AffectError, MissingStageError
from ..ingest.catalog import find_catalog
from ..progress import Talk
from ..records import Problem, StageReport, Subject, Work
from ..storage.fingerprint import fingerprint, source_digest
from ..storage.shard import FEATURES, VERSION, FrameShard, Shard, is_fresh, sweep
from .audit_record import accepted_subjects
from .encoder import EncoderPlan, plan_encoder
from .encoding import THREADS, Caching, cache_subject
from .looking import annotation_digest, fresh_frames, place_digest

STAGE = "cache-features"
MOST_LANES = 8
"""Pieces of one subject that are computed at once: each takes memory, and a decoder gives frames for no more."""
LOOKS = 2
"""Of how frames become features: counted up whenever the same weights would give other ones."""


def cache_features(config: Config, data: Path, work: Work, talk: Talk, *, scheduler: str | None = None) -> StageReport:
    """Writes W/features/<subject>.h5 for every accepted subject, unless it is there and up to date.

    Raises MissingStageError where the STN or the backbone is not there yet.
    """
    plan = plan_encoder(config, work)
    catalog = find_catalog(data)
    wanted: list[Caching] = []
    kept: list[str] = []
    failed: dict[str, Problem] = {}
    sweep(work.features("").parent)
    for subject in accepted_subjects(work, catalog):
        video = catalog.video(subject.video).path
        try:
            frames = fresh_frames(config, catalog.video(subject.video), work)
            made_from = features_fingerprint(config, plan, subject, video, frames)
        except AffectError as error:
            failed[subject.name] = Problem("refused", subject.name, error.problem, error.remedy)
            continue
        if is_fresh(work.features(subject.name), FEATURES, made_from):
            kept.append(subject.name)
        else:
            out = work.features(subject.name)
            wanted.append(Caching(subject, video, frames, out, made_from, config, plan))
    if not wanted and not kept and not failed:
        raise MissingStageError("no subject was accepted by the audit", "`affect audit` tells why.")
    wanted.sort(key=lambda item: (-item.video.stat().st_size, item.subject.name))
    made: list[str] = []
    frames_made = 0
    if wanted:
        for warning in plan.warnings:
            talk.warn(warning)
        with talk.track(STAGE, len(wanted), "subjects") as bar:

            def done(item: Caching, result: int | Problem) -> None:
                nonlocal frames_made
                name = item.subject.name
                if isinstance(result, Problem):
                    failed[name] = result
                    item.out.unlink(missing_ok=True)  # what other settings made is not what was asked for
                    bar.advance(item=f"{name}: {result.message}")
                else:
                    if not made:
                        with Shard(item.out, FEATURES) as shard:
                            talk.say(f"{STAGE}: {shard.attributes['precision']} on {shard.attributes['device']}")
                    made.append(name)
                    frames_made += result
                    bar.advance(item=f"{name}: {result} frames")

            def died(item: Caching, reason: str) -> None:
                done(item, Problem("damaged", item.subject.name, reason, "Free memory, or set fewer runtime.workers."))

            workers, lanes = (0, 1) if scheduler else spread(config, len(wanted))
            run_tasks(
                cache_subject, [replace(item, lanes=lanes) for item in wanted], workers=workers, scheduler=scheduler,
                threads=THREADS, on_result=done, on_error=died,
            )  # fmt: skip
    return StageReport(
        STAGE,
        work.features("").parent,
        made=tuple(sorted(made)),
        kept=tuple(kept),
        failed=tuple(problem for _, problem in sorted(failed.items())),
        facts={"subjects": len(made) + len(kept), "frames_made": frames_made, "encoder": plan.digest},
    )


def features_fingerprint(config: Config, plan: EncoderPlan, subject: Subject, video: Path, frames: Path | None) -> str:
    """What a subject's features bear that are up to date. frames: the shard of its video, None where it has none that
    is. Raises InputError, ShardError."""
    if frames is None:
        made_from = [source_digest(video), config.frames.size]
    else:
        with FrameShard(frames) as shard:
            made_from = [shard.fingerprint]
    return fingerprint(
        format=FEATURES,
        version=[VERSION, LOOKS],
        frames=made_from,
        labels=annotation_digest(subject),
        split=subject.split,
        region=subject.region,
        encoder=plan.digest,
        places=place_digest(config, subject),
        views=config.features.views,
        precision=config.runtime.precision,
        seed=config.runtime.seed if config.features.views > 1 else None,
    )


def spread(config: Config, subjects: int) -> tuple[int, int]:
    """(worker processes, pieces that each computes at once) for so many subjects on this machine.

    A number of workers that was chosen says how many cores are to be used. Else there is one for each GPU, or for every
    two cores where there is none; and where the subjects are fewer, the cores that are left compute more pieces of
    each.
    """
    from ..learning.runtime import gpu_count

    workers = config.runtime.workers
    if workers < 0:
        workers = gpu_count(config.runtime.device) or worker_count(-1, THREADS)
    lanes = 1 if config.runtime.workers > 0 else worker_count(-1, THREADS) // max(1, min(workers, subjects))
    return 0 if subjects == 1 else workers, max(1, min(MOST_LANES, lanes))
