"""What the tests share: a small demo tree, real videos where there are any, and settings that are quick."""

import fcntl
import os

os.environ.setdefault("OMP_NUM_THREADS", "2")

from pathlib import Path
from typing import Any

import pytest
from affect.configs.schema import Config
from affect.pipeline.ingest.synthetic import draw_tree

SMALL: dict[str, Any] = {"videos": 8, "frames": 48, "seed": 3, "faces": 80, "workers": 2}
REAL = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo tree of 8 ordinary videos of about 48 frames and the quirky ones. Not to be changed: copy it first."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" not in os.environ:
        root = base / "tree"
        draw_tree(root, **SMALL)
        return root
    # Under xdist the workers share the parent folder: the first one draws, the others wait and find it drawn.
    root = base.parent / "tree"
    with (base.parent / "tree.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        draw_tree(root, **SMALL)
    return root


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real videos and labels; skips where it is absent."""
    if not REAL.is_dir():
        pytest.skip("no real data beside this checkout")
    return REAL


@pytest.fixture(scope="session")
def tiny() -> Config:
    """The demo's settings, made so small that every stage takes seconds."""
    return Config.model_validate(
        {
            "name": "tiny",
            "frames": {"size": 64},
            "stn": {"view": 32, "crop": 32},
            "pretrain_stn": {"frames": 64, "epochs": 1, "batch": 16},
            "pretrain_backbone": {"start": "scratch", "size": 32, "epochs": 1, "batch": 32},
            "adapt": {"epochs": 1, "frames": 64, "batch": 16},
            "features": {"batch": 32},
            "clip": {"length": 16, "hop": 8},
            "head": {"project": 16, "hidden": 16, "dense": [8]},
            "train": {"epochs": 2, "batch": 8},
            "runtime": {"workers": 0},
        }
    )
