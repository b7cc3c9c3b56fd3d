"""affect cache-features: runs STN and backbone once on each frame and writes one feature shard per subject.

Frames come from the frame shards, or from the video if it has no up-to-date shard. Dask workers get paths and settings,
and load the networks once.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ...configs.schema import Config
from ..cluster import Shared, run_tasks, worker_count
from ..errors import MissingStageError
from ..faults import worker_died
from ..features.crops import annotation_digest, crop_source_digest, frames_fingerprint, fresh_frames
from ..features.encode import THREADS, FeatureJob, cache_subject
from ..features.encoder import EncoderPlan, plan_encoder
from ..features.shard_jobs import ShardJobs
from ..features.video_digest import video_digest
from ..ingest.catalog import find_catalog
from ..progress import Reporter
from ..records import Problem, StageReport, Subject, Video, Work
from ..storage.atomic import sweep
from ..storage.audit_file import accepted_subjects
from ..storage.fingerprint import fingerprint
from ..storage.shard import FEATURES, VERSION, Shard

STAGE = "cache-features"
MAX_PARALLEL_CHUNKS = 8
"""Chunks of one subject that are computed at the same time. Each takes memory, and one decoder cannot supply more."""
ENCODING_VERSION = 2
"""Version of the encoding. Increase it when the same weights give other features."""


def cache_features(
    config: Config, data: Path, work: Work, reporter: Reporter, *, scheduler: str | None = None
) -> StageReport:
    """Writes W/features/<subject>.h5 for each subject that the audit accepted, unless it is up to date.

    Raises MissingStageError if the weights of the STN or the backbone are missing.
    """
    if scheduler:
        data, work = data.absolute(), work.absolute()
    encoder = plan_encoder(config, work)
    pending, jobs = plan(config, encoder, data, work)
    shared = _shared(work, encoder, pending, reporter)
    frames_made = _compute(config, encoder, pending, jobs, scheduler, shared, reporter) if pending else 0
    facts = {"subjects": len(jobs.made) + len(jobs.kept), "frames_made": frames_made, "encoder": encoder.digest}
    return jobs.report(work.features("").parent, facts)


def plan(config: Config, encoder: EncoderPlan, data: Path, work: Work) -> tuple[list[FeatureJob], ShardJobs]:
    """The subjects to compute, the largest videos first, and a record of those that are up to date or cannot be used.

    Raises CatalogError, and MissingStageError if the audit accepted no subject.
    """
    catalog = find_catalog(data)
    pending: list[FeatureJob] = []
    jobs = ShardJobs(STAGE, FEATURES)
    sweep(work.features("").parent)
    for subject in accepted_subjects(work, catalog):
        video = catalog.video(subject.video)
        make_job = partial(_job, config, encoder, work, subject, video)
        job = jobs.plan(subject.name, work.features(subject.name), make_job, kind="refused")
        if job is not None:
            pending.append(job)
    if not pending and not jobs.kept and not jobs.failed:
        raise MissingStageError("the audit accepted no subject", "See `affect audit` for the reasons.")
    pending.sort(key=lambda item: (-item.video.stat().st_size, item.subject.name))
    return pending, jobs


def _job(config: Config, plan: EncoderPlan, work: Work, subject: Subject, video: Video) -> FeatureJob:
    frames = fresh_frames(config, video, work)
    key = features_fingerprint(config, plan, subject, video.path, frames)
    return FeatureJob(subject, video.path, frames, work.features(subject.name), key, config, plan)


def _compute(
    config: Config,
    plan: EncoderPlan,
    pending: list[FeatureJob],
    jobs: ShardJobs,
    scheduler: str | None,
    shared: Shared,
    reporter: Reporter,
) -> int:
    """Computes the features of the subjects and returns the number of frames."""
    for warning in plan.warnings:
        reporter.warning(warning)
    frames_made = 0
    with reporter.progress(STAGE, len(pending), "subjects") as bar:

        def done(item: FeatureJob, result: int | Problem) -> None:
            nonlocal frames_made
            if not isinstance(result, Problem):
                frames_made += result
                if not jobs.made:
                    with Shard(item.out, FEATURES) as shard:
                        reporter.info(f"{STAGE}: {shard.attributes['precision']} on {shard.attributes['device']}")
            jobs.finish(item.subject.name, item.out, result, bar)

        def died(item: FeatureJob, reason: str) -> None:
            done(item, worker_died(item.subject.name, reason))

        workers, parallel_chunks = (0, 1) if scheduler else spread(config, len(pending))
        tasks = [replace(item, parallel_chunks=parallel_chunks) for item in pending]
        run_tasks(
            cache_subject, tasks, workers=workers, scheduler=scheduler, threads=THREADS, on_result=done,
            on_error=died, shared=shared,
        )  # fmt: skip
    return frames_made


def _shared(work: Work, plan: EncoderPlan, pending: Sequence[FeatureJob], reporter: Reporter) -> Shared:
    reads = [path for item in pending for path in (item.frames or item.video, item.subject.annotation)]
    weights = [path for path in (plan.stn, plan.backbone) if isinstance(path, Path)]
    return Shared(work.root, reads, weights, reporter.warning)


def features_fingerprint(config: Config, plan: EncoderPlan, subject: Subject, video: Path, frames: Path | None) -> str:
    """Fingerprint of up-to-date features. frames: the up-to-date frame shard of the video, or None. Raises
    InputError."""
    # `frames` is up to date, so it has this fingerprint.
    made_from = [frames_fingerprint(config, video)] if frames else [video_digest(video), config.frames.size]
    return fingerprint(
        format=FEATURES,
        version=[VERSION, ENCODING_VERSION],
        frames=made_from,
        labels=annotation_digest(subject),
        split=subject.split,
        region=subject.region,
        encoder=plan.digest,
        places=crop_source_digest(config, subject),
        views=config.features.views,
        precision=config.runtime.precision,
        seed=config.runtime.seed if config.features.views > 1 else None,
        **({} if config.features.fps is None else {"fps": config.features.fps}),
    )


def spread(config: Config, subjects: int) -> tuple[int, int]:
    """(worker processes, parallel chunks in each) for this number of subjects on this machine.

    If runtime.workers is set, it is used with one chunk each. By default there is one worker per GPU, or without a GPU
    one per two cores. With fewer subjects than workers, the remaining cores compute more chunks of each subject.
    """
    from ..learning.runtime import gpu_count

    workers = config.runtime.workers
    if workers < 0:
        workers = gpu_count(config.runtime.device) or worker_count(-1, THREADS)
    parallel_chunks = 1 if config.runtime.workers > 0 else worker_count(-1, THREADS) // max(1, min(workers, subjects))
    return 0 if subjects == 1 else workers, max(1, min(MAX_PARALLEL_CHUNKS, parallel_chunks))
