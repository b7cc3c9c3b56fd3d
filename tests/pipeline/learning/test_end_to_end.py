"""Raw frames through the whole network: the same outputs as from cache, and every part learns at its own rate."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from affect.configs.schema import Clip, Config, load
from affect.models.affect_net import AffectNet
from affect.models.backbone import scratch
from affect.models.head import HeadSettings, TemporalHead
from affect.models.stn import SpatialTransformer
from affect.pipeline.learning.augment import NO_WINDOW_CHANGE, change_windows, draw_window_changes
from affect.pipeline.learning.end_to_end import EndToEnd
from affect.pipeline.learning.frame_tracks import (
    FrameTrack,
    predict_frames,
    read_windows,
)
from affect.pipeline.learning.loop import FitSettings, fit
from affect.pipeline.learning.runtime import Compute
from affect.pipeline.learning.windows import predict_track, track_reader
from affect.pipeline.progress import Reporter
from torch import Tensor

CPU = Compute(torch.device("cpu"))
CLIP = Clip(length=6, hop=4)
SIDE = 40


def settings(*more: str) -> Config:
    common = [
        "clip.length=6", "clip.hop=4", "stn.view=32", "stn.crop=32", "features.batch=64", "train.batch_end_to_end=2",
        "head.project=8", "head.hidden=8", "head.dense=[8]", "train.learning_rate_backbone=1e-4",
        "train.learning_rate_stn=1e-3",
    ]  # fmt: skip
    return load("demo", [*common, *more])


def network(config: Config) -> AffectNet:
    torch.manual_seed(0)
    stn = SpatialTransformer(config.stn.kind, config.stn.view, config.stn.crop, config.stn.margin)
    return AffectNet(stn, scratch(), TemporalHead(2048, HeadSettings(**config.head.model_dump()))).eval()


def track(name: str, n: int, seed: int, **more: Any) -> FrameTrack:
    """Bright squares on noise; the target is how bright and how far to the right."""
    rng = np.random.default_rng(seed)
    target = np.clip(np.cumsum(rng.normal(0, 0.3, (n, 2)), 0), -1, 1).astype(np.float32)
    pictures = rng.integers(0, 60, (n, 3, SIDE, SIDE), dtype=np.uint8)
    for picture, (bright, right) in zip(pictures, target, strict=True):
        x = int(14 + 8 * right)
        picture[:, 12:28, x : x + 12] = int(150 + 80 * bright)
    frames = torch.from_numpy(pictures)
    index = np.arange(n) + (np.arange(n) > n // 2)
    return FrameTrack(
        name, lambda rows: frames[torch.from_numpy(rows)], (0.0, 0.0, 1.0, 1.0), index, index / 25, target,
        rng.random(n) < 0.9, **more,
    )  # fmt: skip


def boxes(n: int) -> dict[str, Any]:
    theta = np.tile(np.array([[0.5, 0, 0.2], [0, 0.4, 0]], np.float32), (n, 1, 1))
    return {"boxes": theta, "boxed": np.arange(n) % 3 > 0}


@pytest.mark.parametrize(("balance", "least", "most"), [("none", 0.8, 0.95), ("subject", 0.4, 0.6)])
def test_with_balance_a_short_subject_gets_as_many_windows_as_a_long_one(
    balance: str, least: float, most: float
) -> None:
    config = settings(f"train.balance={balance}")
    tracks = [replace(track(str(n), n, n), target=np.full((n, 2), n > 20, np.float32)) for n in (72, 12)]
    task = EndToEnd(network(config), tracks, tracks, config, CPU, calibrate=False)
    targets = [batch.target[batch.present] for epoch in range(4) for batch in task.batches(epoch)]
    assert least < torch.cat(targets).mean() < most, "of the frames shown, this share is the long subject's"


@pytest.mark.parametrize("n", [1, 6, 23])
def test_cache_and_raw_frames_give_the_same_values(n: int) -> None:
    config = settings()
    net = network(config)
    whole = track("a", n, 1)
    seen = predict_frames(net, whole, track_reader(net.head, CLIP, CPU), CPU, batch=7)
    with torch.no_grad():
        cached = net.encode(whole.frames(np.arange(n))).feature.half()
    values = predict_track(net.head, cached, CLIP, CPU)
    assert seen.values.shape == (n, 2)
    np.testing.assert_allclose(seen.values, values, atol=2e-3)
    if n == 6:
        output = net.head(net.encode(whole.frames(np.arange(n))).feature[None])
        np.testing.assert_allclose(seen.values, output.frame[0].detach(), atol=1e-5)


def make_task(config: Config, *tracks: FrameTrack) -> EndToEnd:
    return EndToEnd(network(config), tracks, tracks[-1:], config, CPU, calibrate=True)


def changed(before: dict[str, Tensor], after: dict[str, Tensor], part: str) -> list[str]:
    return [name for name in before if name.startswith(part) and not torch.equal(before[name], after[name])]


def train(task: EndToEnd, epochs: int = 1) -> tuple[dict[str, Tensor], dict[str, Tensor], list[dict[str, Any]]]:
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    decay = task.config.train.weight_decay
    settings = FitSettings(
        "validation_ccc_mean", epochs, ema=0.0, warmup=0.0, weight_decay=decay, gradient_clip=1.0, schedule="cosine"
    )
    result = fit(task, settings, CPU, Reporter(quiet=True), "t")
    return before, task.model.state_dict(), result.history


def test_all_parts_learn_and_running_statistics_stay() -> None:
    task = make_task(settings(), track("a", 14, 1, **boxes(14)), track("b", 9, 2))
    before, after, history = train(task)
    for part in ("stn.", "backbone.", "head."):
        assert changed(before, after, part)
    assert not [name for name in changed(before, after, "") if "running" in name or "num_batches" in name]
    assert {"train_box_loss", "train_affect_loss", "validation_ccc_mean"} <= history[0].keys()


@pytest.mark.parametrize(("part", "frozen"), [("stn", "stn."), ("backbone", "backbone.")])
def test_a_rate_of_zero_freezes(part: str, frozen: str) -> None:
    task = make_task(settings(f"train.learning_rate_{part}=0"), track("a", 14, 1))
    before, after, _ = train(task)
    assert not changed(before, after, frozen)
    assert changed(before, after, "head.")


def test_given_crops_replace_the_stn() -> None:
    theta = np.tile(np.array([[0.4, 0, 0.1], [0, 0.5, 0]], np.float32), (14, 1, 1))
    task = make_task(settings(), track("a", 14, 1, theta=theta))
    before, after, history = train(task)
    assert not changed(before, after, "stn.")
    assert "train_box_loss" not in history[0]
    seen = task.predict(task.validation_tracks[0])
    np.testing.assert_array_equal(seen.theta, theta)


def test_the_boxes_train_the_stn_and_their_iou_is_recorded() -> None:
    config = settings("train.box_weight=20", "train.learning_rate_backbone=0", "train.learning_rate_stn=3e-3")
    task = make_task(config, track("a", 24, 1, **boxes(24)))
    _, _, history = train(task, epochs=6)
    assert history[-1]["train_box_loss"] < history[0]["train_box_loss"] / 2
    assert history[-1]["validation_iou"] > history[0]["validation_iou"]


def test_without_boxes_the_stn_is_held_where_it_looked() -> None:
    far = [moved(settings(f"train.box_weight={weight}", "train.learning_rate_stn=3e-3")) for weight in (0, 1000)]
    assert far[1] < far[0]


def moved(config: Config) -> float:
    """How far training moves where the STN looks, in the mean."""
    task = make_task(config, track("a", 18, 1))
    looks = []
    for epochs in (0, 2):
        train(task, epochs=epochs)
        looks.append(task.predict(task.validation_tracks[0]).theta)
    return float(np.abs(looks[1] - looks[0]).mean())


def test_small_pieces_give_the_gradient_of_the_whole() -> None:
    tracks = (track("a", 14, 1, **boxes(14)), track("b", 4, 2))
    gradients = []
    for size in (64, 5):
        task = make_task(settings(f"features.batch={size}"), *tracks)
        torch.manual_seed(1)
        loss, _ = task.loss(read_windows(tracks, np.array([[0, 3], [1, 0]]), 6))
        loss.backward()
        gradients.append({name: p.grad for name, p in task.model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-5)


def test_what_is_padded_changes_nothing() -> None:
    short = track("b", 4, 2)
    task = make_task(settings("train.box_weight=0"), track("a", 14, 1))
    losses = []
    for length in (4, 9):
        torch.manual_seed(1)
        task.model.eval()
        losses.append(task.loss(read_windows([short], np.array([[0, 0]]), length))[0].item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_the_change_of_colour_is_one_for_a_window() -> None:
    same = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (1, 3, SIDE, SIDE), dtype=np.uint8))
    still = replace(track("a", 12, 1), frames=lambda rows: same.expand(len(rows), -1, -1, -1))
    task = make_task(settings(), still)
    changes = draw_window_changes(2, np.random.default_rng(3))
    feature, _ = task._encode(read_windows([still], np.array([[0, 0], [0, 6]]), 6, changes))
    first, second = feature.split(6)
    assert torch.allclose(first, first[:1].expand_as(first), atol=1e-5)
    assert not torch.allclose(first[0], second[0], atol=1e-5)


def test_each_augmentation_changes_only_its_own_property() -> None:
    """Grey has one value in all channels, blur takes detail away, what is erased is even, and `unchanged` changes
    nothing."""
    crop = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 255
    change = torch.from_numpy(np.tile(NO_WINDOW_CHANGE, (4, 1)))
    change[1, 3], change[2, 4] = 1, 0.012
    change[3, 5:] = torch.tensor([0.25, 0.5, 0.5, 1.0])
    plain, grey, soft, holed = change_windows(crop, change)
    torch.testing.assert_close(plain, crop[0])
    torch.testing.assert_close(grey[0], grey[2])
    assert soft.std() < crop[2].std()
    hole = holed[:, 16:, 8:16]
    assert hole.std() < 1e-3
    holed[:, 16:, 8:16] = crop[3, :, 16:, 8:16]
    torch.testing.assert_close(holed, crop[3])
    many = draw_window_changes(4000, np.random.default_rng(0))
    assert (many[:, 3:5] > 0).mean(0) == pytest.approx([0.1, 0.15], abs=0.03)
    assert ((many[:, 5:7] >= 0) & (many[:, 7:] <= 1) & (many[:, 7:] >= many[:, 5:7])).all()
