"""The STN that comes with affect knows drawn faces; `pretrain stn` goes on from it, from a file, or from nothing."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from affect.configs.schema import Config, load
from affect.models.stn import Kind, SpatialTransformer
from affect.models.theta import box_iou, theta_from_corners
from affect.pipeline.errors import InputError, WeightsError
from affect.pipeline.ingest.synthetic.film import Film, draw_film
from affect.pipeline.ingest.video import decode
from affect.pipeline.learning.boxes_seen import area_under_roc
from affect.pipeline.progress import Talk
from affect.pipeline.records import Work
from affect.pipeline.stages.audit import audit
from affect.pipeline.stages.encoder import build_stn
from affect.pipeline.stages.extract_frames import extract_frames
from affect.pipeline.stages.pretrain_stn import pretrain_stn
from affect.pipeline.stages.stn_start import SHIPPED, begin, start_weights
from affect.pipeline.storage.checkpoint import load_weights, save_weights
from torch import Tensor

QUIET = Talk(quiet=True)
FRAMES = 10


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tensor, Tensor, np.ndarray]:
    """Pictures of people of whom the shipped STN saw none, uint8 [n, 3, 256, 256], theta [n, 2, 3] and who is seen."""
    folder, pixels, theta, seen = tmp_path_factory.mktemp("strangers"), [], [], []
    for seed in range(12):
        film = Film(folder / f"{seed}.mp4", 77_000 + seed, FRAMES, 0.5, 1, 640, 360)
        acted = draw_film(film)[0]
        with decode(film.path, 256) as decoding:
            pixels += [torch.from_numpy(batch.pixels).permute(0, 3, 1, 2) for batch in decoding]
        theta.append(theta_from_corners(torch.from_numpy(acted.box).float(), 640, 360))
        seen.append(acted.seen)
    return torch.cat(pixels), torch.cat(theta), np.concatenate(seen)


def shipped(kind: Kind = "crop", view: int = 96) -> SpatialTransformer:
    stn = SpatialTransformer(kind, view, 64).eval()
    begin(stn, SHIPPED)
    return stn


def test_it_finds_people_it_never_saw(strangers: tuple[Tensor, Tensor, np.ndarray]) -> None:
    pixels, true, seen = strangers
    with torch.inference_mode():
        theta, presence = shipped().locate(pixels)
    iou = box_iou(theta, true).numpy()[seen]
    assert iou.mean() > 0.88
    assert (iou > 0.7).mean() > 0.95
    assert not seen.all()
    assert area_under_roc(presence.numpy(), seen) > 0.97


@pytest.mark.parametrize("kind", ["similarity", "affine"])
def test_other_transforms_begin_with_the_same_boxes(strangers: tuple[Tensor, Tensor, np.ndarray], kind: Kind) -> None:
    pixels, true, seen = strangers
    with torch.inference_mode():
        theta, _ = shipped(kind).locate(pixels[::3])
    assert (theta[:, 0, 1] == 0).all(), "not turned"
    assert box_iou(theta, true[::3]).numpy()[seen[::3]].mean() > 0.8


@pytest.mark.parametrize("view", [80, 128])
def test_another_view_begins_with_the_same_boxes(strangers: tuple[Tensor, Tensor, np.ndarray], view: int) -> None:
    pixels, true, seen = strangers
    with torch.inference_mode():
        theta, _ = shipped(view=view).locate(pixels[::3])
    assert box_iou(theta, true[::3]).numpy()[seen[::3]].mean() > 0.85


def test_it_says_what_it_was_made_from_and_is_small() -> None:
    state, metadata = load_weights(SHIPPED)
    assert metadata["people"] == 800
    assert metadata["report"]["iou"] > 0.9
    assert all(value.isfinite().all() for value in state.values())
    assert SHIPPED.stat().st_size < 500_000


def test_it_can_be_made_again(tmp_path: Path) -> None:
    make_stn = runpy.run_path(str(SHIPPED.with_name("make_stn.py")))
    out = tmp_path / "made.safetensors"
    data = tmp_path / "data"
    films = make_stn["films"](data, 4)
    assert sum(film.people for film in films) == 4
    for film in films:
        make_stn["draw"](film)
    make_stn["make"](tmp_path, 4, 1, 32, out)
    made, metadata = load_weights(out)
    assert made.keys() == load_weights(SHIPPED)[0].keys()
    assert made["localiser.presence.weight"].dtype == torch.float16
    assert metadata["people"] == 4
    begin(SpatialTransformer(), out)


def test_the_start_is_named(tmp_path: Path) -> None:
    def start(*settings: str) -> Path | None:
        return start_weights(load("demo", list(settings)))

    assert start() == SHIPPED
    assert start("pretrain_stn.start=scratch") is None
    assert start("stn.view=48") is None, "faces in so small a view are none that it knows"
    with pytest.raises(InputError, match=r"pretrain_stn\.start is 'nothing', which does not exist") as caught:
        start("pretrain_stn.start=nothing")
    assert caught.value.remedy == "Use drawn, scratch or a path."
    save_weights(tmp_path / "w.safetensors", {"fc": torch.zeros(2)}, {"format": "affect-backbone"})
    with pytest.raises(WeightsError, match="holds 'affect-backbone', expected 'affect-stn'"):
        begin(SpatialTransformer(), tmp_path / "w.safetensors")
    save_weights(tmp_path / "w.safetensors", {"fc": torch.zeros(2)}, {"format": "affect-stn"})
    with pytest.raises(WeightsError, match="Missing key"):
        begin(SpatialTransformer(), tmp_path / "w.safetensors")


def _trained(tree: Path, work: Path, *settings: str) -> dict[str, float]:
    config: Config = load(
        "demo", ["frames.size=128", "pretrain_stn.frames=64", "pretrain_stn.batch=16", "runtime.workers=0", *settings]
    )
    audit(config, tree, Work(work), QUIET)
    extract_frames(config, tree, Work(work), QUIET)
    return pretrain_stn(config, tree, Work(work), QUIET).facts


def test_a_set_with_few_pictures_profits(tree: Path, tmp_path: Path) -> None:
    as_it_is = _trained(tree, tmp_path, "pretrain_stn.epochs=0")
    assert not as_it_is["trained"]
    assert as_it_is["iou"] > 0.8
    begun = _trained(tree, tmp_path, "pretrain_stn.epochs=1", "pretrain_stn.learning_rate=1e-4")
    assert begun["iou"] > as_it_is["iou"] - 0.02
    kept = tmp_path / "kept.safetensors"
    Work(tmp_path).weights("stn").rename(kept)
    stn = build_stn(load("demo"), kept)
    other = _trained(tree, tmp_path, "pretrain_stn.epochs=0", f"pretrain_stn.start={kept}")
    assert other["iou"] == pytest.approx(begun["iou"], abs=1e-6)
    assert stn.kind == "crop"
    assert _trained(tree, tmp_path, "pretrain_stn.epochs=1", "pretrain_stn.start=scratch")["iou"] < 0.6
