"""What a stage that writes one shard per video or subject has to make, and what became of each shard."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from ..faults import one_input
from ..progress import Tracker
from ..records import Problem, StageReport
from ..storage.shard import is_fresh


class _Fingerprinted(Protocol):
    @property
    def fingerprint(self) -> str: ...


Job = TypeVar("Job", bound=_Fingerprinted)


@dataclass
class ShardJobs:
    """The shards of one stage, by the name of their video or subject. format: of the shards, FRAMES or FEATURES."""

    stage: str
    format: str
    made: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, Problem] = field(default_factory=dict)

    def plan(
        self, name: str, shard: Path, make_job: Callable[[], Job], kind: Literal["damaged", "refused"] = "damaged"
    ) -> Job | None:
        """The job that makes a shard. None if the shard is up to date, or if the input cannot be used; then it is in
        `failed` as a problem of this kind."""
        problems: list[Problem] = []
        job = None
        with one_input(name, problems, kind=kind):
            job = make_job()
        if job is None:
            self.failed[name] = problems[0]
        elif is_fresh(shard, self.format, job.fingerprint):
            self.kept.append(name)
            return None
        return job

    def finish(self, name: str, shard: Path, result: int | Problem, bar: Tracker) -> None:
        """Records the result of a job: the number of its frames, or a problem. The outdated shard of a failed job is
        removed."""
        if isinstance(result, Problem):
            self.failed[name] = result
            shard.unlink(missing_ok=True)
            bar.advance(item=f"{name}: {result.message}")
        else:
            self.made.append(name)
            bar.advance(item=f"{name}: {result} frames")

    def report(self, output: Path, facts: dict[str, Any]) -> StageReport:
        failed = tuple(problem for _, problem in sorted(self.failed.items()))
        return StageReport(self.stage, output, tuple(sorted(self.made)), tuple(self.kept), failed, facts)
