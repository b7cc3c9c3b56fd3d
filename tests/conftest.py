"""What the tests share: a small demo tree, real videos where there are any, and settings that are quick."""

import fcntl
import os

os.environ.setdefault("OMP_NUM_THREADS", "2")

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from affect.configs.schema import Config
from affect.pipeline.ingest.synthetic import draw_tree

if TYPE_CHECKING:
    from affect.pipeline.learning.montage import Pictures
    from affect.pipeline.records import Work

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


@pytest.fixture(scope="session")
def whole(tiny: Config) -> Config:
    """Settings that need no earlier stage but frames: the whole picture through a random backbone."""
    return Config.model_validate(
        tiny.model_dump()
        | {
            "stn": {"localiser": "none", "view": 32, "crop": 32},
            "backbone": {"weights": "scratch"},
            "adapt": {"epochs": 0},
            "train": {"epochs": 3, "batch": 4, "ema": 0.9, "patience": 3, "state_minutes": 1e-9},
            "runtime": {"workers": 0, "device": "cpu", "precision": "fp32"},
        }
    )


@pytest.fixture
def cached(whole: Config, tmp_path: Path) -> "Work":
    """A work folder with the features of six subjects, made up: two of them say what the targets are."""
    import numpy as np
    from affect.pipeline.records import Work
    from affect.pipeline.stages.encoder import plan_encoder
    from affect.pipeline.storage.shard import FEATURES, ShardWriter

    work = Work(tmp_path)
    encoder = plan_encoder(whole, work).digest
    for number, name in enumerate("abcdvw"):
        rng, n = np.random.default_rng(number), 70 + number
        feature = np.maximum(rng.normal(size=(n, 2048)), 0).astype(np.float16)
        attributes = {
            "split": "validation" if name in "vw" else "train", "video": name, "encoder": encoder,
            "width": 64, "height": 64,
        }  # fmt: skip
        with ShardWriter(work.features(name), FEATURES, f"print of {name}", {}, name, attributes) as writer:
            writer.append(
                feature=feature, theta=np.zeros((n, 2, 3), np.float32), presence=np.ones(n, np.float32),
                index=np.arange(n), pts=np.arange(n) / 25, target=np.tanh(feature[:, :2].astype(np.float32)),
                valid=rng.random(n) < 0.9,
            )  # fmt: skip
    return work


@pytest.fixture(scope="session")
def faces() -> "Callable[..., Pictures]":
    """Draws simple pictures with a face and its box, for the STN to learn from."""
    import torch
    import torch.nn.functional as F
    from affect.models.theta import theta_from_corners
    from affect.pipeline.learning.montage import Pictures

    def draw(n: int, side: int = 64, seed: int = 0, without: float = 0.0) -> Pictures:
        """White ellipses with two dark eyes on coloured clouds, and their boxes."""
        generator = torch.Generator().manual_seed(seed)

        def uniform(low: float, high: float) -> torch.Tensor:
            return low + (high - low) * torch.rand(n, 1, 1, generator=generator)

        steps = (2 * torch.arange(side) + 1) / side - 1
        across, down = steps.expand(side, side), steps[:, None].expand(side, side)
        half, centre_x, centre_y = uniform(0.2, 0.4), uniform(-0.4, 0.4), uniform(-0.4, 0.4)
        high = half * 1.3
        there = uniform(0, 1) >= without
        x, y = (across - centre_x) / half, (down - centre_y) / high
        skin = (x.square() + y.square() < 1) & there
        eyes = skin & ((x.abs() - 0.4).square() + (y + 0.2).square() < 0.03)
        clouds = F.interpolate(torch.rand(n, 3, 6, 6, generator=generator) * 180, side, mode="bilinear")
        pixels = torch.where(skin[:, None], 250.0, clouds)
        pixels = torch.where(eyes[:, None], 10.0, pixels)
        edges = (centre_x - half, centre_y - high, centre_x + half, centre_y + high)
        theta = theta_from_corners((torch.cat([edge[:, 0] for edge in edges], 1) + 1) / 2, 1, 1)
        return Pictures(pixels.to(torch.uint8), theta, there[:, 0, 0])

    return draw
