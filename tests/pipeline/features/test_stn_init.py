"""Initial weights of `pretrain stn`: the shipped STN, a file, or random weights."""

import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from affect.configs.schema import Config, load
from affect.models.stn import Kind, SpatialTransformer
from affect.models.theta import box_iou, theta_from_corners
from affect.pipeline.errors import InputError, WeightsError
from affect.pipeline.features.encoder import build_stn
from affect.pipeline.features.stn_init import DRAWN_WEIGHTS, SHIPPED, init_from, start_weights
from affect.pipeline.ingest.boxed_pictures import held_out, read_pictures
from affect.pipeline.ingest.synthetic.video import SyntheticVideo, draw_video
from affect.pipeline.ingest.video.decode import decode
from affect.pipeline.learning.stn.compose import load_sources
from affect.pipeline.learning.stn.objective import area_under_roc
from affect.pipeline.progress import Reporter
from affect.pipeline.records import BASE_MODEL, Work
from affect.pipeline.stages.audit import audit
from affect.pipeline.stages.extract_frames import extract_frames
from affect.pipeline.stages.pretrain_stn import pretrain_stn
from affect.pipeline.storage.checkpoint import load_weights, save_weights
from torch import Tensor

QUIET = Reporter(quiet=True)
FRAMES = 10
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def unknown_people(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tensor, Tensor, np.ndarray]:
    """Frames of people that the shipped STN was not trained on: uint8 [n, 3, 256, 256], true theta [n, 2, 3], and
    whether the face is visible, bool [n]."""
    folder, pixels, theta, seen = tmp_path_factory.mktemp("strangers"), [], [], []
    for seed in range(12):
        video = SyntheticVideo(folder / f"{seed}.mp4", 77_000 + seed, FRAMES, 0.5, 1, 640, 360)
        acted = draw_video(video)[0]
        with decode(video.path, 256) as decoding:
            pixels += [torch.from_numpy(batch.pixels).permute(0, 3, 1, 2) for batch in decoding]
        theta.append(theta_from_corners(torch.from_numpy(acted.box).float(), 640, 360))
        seen.append(acted.seen)
    return torch.cat(pixels), torch.cat(theta), np.concatenate(seen)


def shipped(kind: Kind = "crop", view: int = 96) -> SpatialTransformer:
    stn = SpatialTransformer(kind, view, 64, 0.1).eval()
    init_from(stn, SHIPPED)
    return stn


def test_the_shipped_stn_finds_unknown_people(unknown_people: tuple[Tensor, Tensor, np.ndarray]) -> None:
    pixels, true, seen = unknown_people
    with torch.inference_mode():
        theta, presence = shipped().locate(pixels)
    iou = box_iou(theta, true).numpy()[seen]
    assert iou.mean() > 0.88
    assert (iou > 0.7).mean() > 0.95
    assert not seen.all()
    assert area_under_roc(presence.numpy(), seen) > 0.97


def test_the_shipped_stn_finds_real_people_that_were_held_out(real: Path) -> None:
    """Every third LFW picture with one face that no training has seen, and every picture without people."""
    pictures = [it for it in read_pictures(real / "faces") if held_out(it.name, 0.2, "make_stn")]
    lone = [it for it in pictures if it.name.startswith("lfw/") and len(it.corners) == 1][::3]
    empty = [it for it in pictures if not len(it.corners)]
    assert len(lone) > 100
    assert len(empty) > 50
    sources, problems = load_sources([*lone, *empty])
    assert not problems
    squares = [cv2.resize(source.decode(), (256, 256)) for source in sources]
    with torch.inference_mode():
        theta, presence = shipped().locate(torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2))
    true = theta_from_corners(torch.from_numpy(np.concatenate([it.corners for it in lone])), 250, 250)
    assert box_iou(theta[: len(lone)], true).mean() > 0.87
    assert (presence[: len(lone)] > 0).float().mean() > 0.97
    assert (presence[len(lone) :] > 0).float().mean() < 0.05


@pytest.mark.parametrize("kind", ["similarity", "affine"])
def test_other_kinds_of_stn_start_with_the_same_boxes(
    unknown_people: tuple[Tensor, Tensor, np.ndarray], kind: Kind
) -> None:
    pixels, true, seen = unknown_people
    with torch.inference_mode():
        theta, _ = shipped(kind).locate(pixels[::3])
    assert (theta[:, 0, 1] == 0).all(), "no rotation"
    assert box_iou(theta, true[::3]).numpy()[seen[::3]].mean() > 0.8


@pytest.mark.parametrize("view", [80, 128])
def test_an_stn_with_another_view_starts_with_the_same_boxes(
    unknown_people: tuple[Tensor, Tensor, np.ndarray], view: int
) -> None:
    pixels, true, seen = unknown_people
    with torch.inference_mode():
        theta, _ = shipped(view=view).locate(pixels[::3])
    assert box_iou(theta, true[::3]).numpy()[seen[::3]].mean() > 0.85


def test_the_shipped_file_is_small_and_describes_its_training() -> None:
    state, metadata = load_weights(SHIPPED)
    assert metadata["report"]["training_pictures"] > 2000
    assert metadata["report"]["iou"] > 0.87
    assert all(value.isfinite().all() for value in state.values())
    assert SHIPPED.stat().st_size < 500_000


def test_the_shipped_stn_can_be_made_again(tmp_path: Path) -> None:
    make_stn = runpy.run_path(str(ROOT / "tools" / "make_stn.py"))
    out = tmp_path / "made.safetensors"
    data = tmp_path / "data"
    planned_videos = make_stn["planned_videos"](data, 4)
    assert sum(video.people for video in planned_videos) == 4
    for video in planned_videos:
        make_stn["draw"](video)
    make_stn["make"](
        tmp_path, 4, ["pretrain_stn.start=scratch", "pretrain_stn.frames=32", "pretrain_stn.epochs=1"], out=out
    )
    made, metadata = load_weights(out)
    assert made.keys() == load_weights(SHIPPED)[0].keys()
    assert made["localiser.presence.weight"].dtype == torch.float16
    assert metadata["people"] == 4
    init_from(SpatialTransformer("crop", 96, 224, 0.1), out)


def test_pretrain_stn_start_selects_the_initial_weights(tmp_path: Path) -> None:
    def start(*settings: str) -> Path | None:
        return start_weights(load("demo", list(settings)))

    assert start() == DRAWN_WEIGHTS
    assert start("pretrain_stn.start=base") == BASE_MODEL
    assert start("pretrain_stn.start=scratch") is None
    assert start("stn.view=48") is None, "the shipped STN does not support so small a view"
    with pytest.raises(InputError, match=r"pretrain_stn\.start is 'nothing', which does not exist") as caught:
        start("pretrain_stn.start=nothing")
    assert caught.value.remedy == "Use drawn, scratch, base or a path."
    save_weights(tmp_path / "w.safetensors", {"fc": torch.zeros(2)}, {"format": "affect-backbone"})
    with pytest.raises(WeightsError, match="has the format 'affect-backbone', expected 'affect-stn'"):
        init_from(SpatialTransformer("crop", 96, 224, 0.1), tmp_path / "w.safetensors")
    save_weights(tmp_path / "w.safetensors", {"fc": torch.zeros(2)}, {"format": "affect-stn"})
    with pytest.raises(WeightsError, match="Missing key"):
        init_from(SpatialTransformer("crop", 96, 224, 0.1), tmp_path / "w.safetensors")


def _trained(demo_data: Path, work: Path, *settings: str) -> dict[str, float]:
    config: Config = load(
        "demo", ["frames.size=128", "pretrain_stn.frames=64", "pretrain_stn.batch=16", "runtime.workers=0", *settings]
    )
    audit(config, demo_data, Work(work), QUIET)
    extract_frames(config, demo_data, Work(work), QUIET)
    return pretrain_stn(config, demo_data, Work(work), QUIET).facts


def test_the_shipped_stn_helps_a_small_data_set(demo_data: Path, tmp_path: Path) -> None:
    untrained = _trained(demo_data, tmp_path, "pretrain_stn.epochs=0")
    assert not untrained["trained"]
    assert untrained["iou"] > 0.8
    trained = _trained(demo_data, tmp_path, "pretrain_stn.epochs=1", "pretrain_stn.learning_rate=1e-4")
    assert trained["iou"] > untrained["iou"] - 0.02
    kept = tmp_path / "kept.safetensors"
    Work(tmp_path).weights("stn").rename(kept)
    stn = build_stn(load("demo"), kept)
    other = _trained(demo_data, tmp_path, "pretrain_stn.epochs=0", f"pretrain_stn.start={kept}")
    assert other["iou"] == pytest.approx(trained["iou"], abs=1e-6)
    assert stn.kind == "crop"
    assert _trained(demo_data, tmp_path, "pretrain_stn.epochs=1", "pretrain_stn.start=scratch")["iou"] < 0.6
