"""What a stage that writes one shard per video or subject has to make, and what became of each shard."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from ..errors import ShardError
from ..faults import one_input
from ..progress import Tracker
from ..records import Problem, StageReport
from ..storage.shard import Shard


class _Fingerprinted(Protocol):
    @property
    def fingerprint(self) -> str: ...


Job = TypeVar("Job", bound=_Fingerprinted)


@dataclass
class ShardJobs:
    """The shards of one stage, by the name of their video or subject. format: of the shards, FRAMES or FEATURES.

    rows: of each kept shard, the number of its frames and the numbers of the lost ones.
    """

    stage: str
    format: str
    made: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, Problem] = field(default_factory=dict)
    rows: dict[str, tuple[int, Sequence[int]]] = field(default_factory=dict)

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
        elif self._is_kept(name, shard, job.fingerprint):
            return None
        return job

    def _is_kept(self, name: str, path: Path, fingerprint: str) -> bool:
        try:
            with Shard(path, self.format) as shard:
                if shard.fingerprint != fingerprint:
                    return False
                self.rows[name] = rows_of(shard)
        except ShardError:
            return False
        self.kept.append(name)
        return True

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


def rows_of(shard: Shard) -> tuple[int, Sequence[int]]:
    """The number of frames in a shard, and the numbers of the lost ones."""
    return len(shard), tuple(shard.attributes.get("lost", ()))
