"""What the tests share: a small demo tree, real videos where there are any, and settings that are quick."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")

from pathlib import Path

import pytest
from affect.configs.schema import Config
from affect.pipeline.ingest.synthetic import draw_tree

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo tree of 8 ordinary videos of about 48 frames and the quirky ones. Not to be changed: copy it first."""
    root = tmp_path_factory.mktemp("tree")
    draw_tree(root, videos=8, frames=48, seed=3, faces=80, workers=1)
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
