"""A small data set, a work folder with random networks, and what one process writes there."""

import hashlib
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from affect.pipeline.ingest.synthetic import draw_demo_data

from ..torture.model import SETTINGS, random_networks
from .checks import CheckError, expect
from .processes import affect

MORE = ("train.epochs=3", "train.batch=4", "train.batch_end_to_end=2", "runtime.workers=0")
VIDEOS, FRAMES, FACES = 8, 40, 40
FOLDERS = {"extract-frames": "frames", "cache-features": "features", "detect-boxes": "boxes"}


@dataclass(frozen=True)
class Demo:
    """data: the data set. reference: the work folder of one process, up to the cached features, and its face boxes.
    folder: for everything that a check writes."""

    data: Path
    reference: Path
    folder: Path

    def work(self, name: str, before: str) -> Path:
        """A new work folder in which the stages before `before` have run."""
        stages = list(FOLDERS)
        left_out = [FOLDERS[stage] for stage in stages[stages.index(before) :]] if before in stages else []
        ignored = shutil.ignore_patterns(*left_out) if left_out else None
        return Path(shutil.copytree(self.reference, self.folder / name / "work", ignore=ignored))

    def words(self, stage: str, work: Path) -> list[str | Path]:
        """The command line of a stage."""
        settings = [word for setting in (*SETTINGS, *MORE) for word in ("--set", setting)]
        words: list[str | Path] = ["--data", self.data, "--work", work, *settings]
        if stage == "detect-boxes":
            words = [self.data / "videos", "--out", work / FOLDERS[stage], *words[2:]]
        if stage == "tune":
            words = words[2:]
        return affect(stage, *words)

    def same(self, stage: str, work: Path) -> str:
        """Says how many files of a stage are equal to those of one process. Raises CheckError if one is not."""
        own, expected = (digests(root / FOLDERS[stage]) for root in (work, self.reference))
        expect(own.keys() == expected.keys(), f"files {sorted(own)} instead of {sorted(expected)}")
        different = sorted(name for name, digest in expected.items() if own[name] != digest)
        expect(not different, f"{len(different)} of {len(expected)} files differ: {different[:3]}")
        return f"{len(expected)} files equal to those of one process"


def draw(folder: Path, stages: Sequence[str] = tuple(FOLDERS)) -> Demo:
    """Draws the data set and runs the audit and these stages in one process."""
    demo = Demo(folder / "data", folder / "reference", folder)
    draw_demo_data(demo.data, videos=VIDEOS, frames=FRAMES, seed=5, faces=FACES, workers=1)
    demo.reference.mkdir()
    random_networks(demo.reference)
    for stage in ("audit", *stages):
        done = subprocess.run(demo.words(stage, demo.reference), capture_output=True, text=True, check=False)
        if done.returncode not in (0, 3):  # 3: the demo has files that are refused
            raise CheckError(f"{stage} in one process: exit code {done.returncode}: {done.stderr[-500:]}")
    return demo


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file in a folder, leftovers included."""
    if not folder.is_dir():
        return {}
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
