"""The encoder plan: the weights that it needs, what its digest covers, and that it imports no torch."""

from pathlib import Path

import pytest
import torch
from affect.configs.schema import Config, load
from affect.models.backbone import Backbone, scratch
from affect.models.stn import SpatialTransformer
from affect.pipeline.errors import MissingStageError, WeightsError
from affect.pipeline.features.encoder import (
    BACKBONE_FORMAT,
    STN_FORMAT,
    build_backbone,
    build_encoder,
    plan_encoder,
    plan_start,
    stn_digest,
)
from affect.pipeline.records import Work
from affect.pipeline.storage.checkpoint import save_weights
from affect.tests.child import output
from affect.tests.programs.libraries import plan_encoder as plan_encoder_alone

SMALL = ("stn.view=32", "stn.crop=32", "adapt.epochs=0")


def settings(*more: str) -> Config:
    return load("demo", [*SMALL, *more])


def save_stn(path: Path, view: int = 32, seed: int = 0) -> None:
    torch.manual_seed(seed)
    stn = SpatialTransformer("crop", view, 32, 0.1)
    shape = {"kind": "crop", "view": view, "crop": 32, "margin": 0.1}
    save_weights(path, stn.state_dict(), {"format": STN_FORMAT, "fingerprint": "x", "stn": shape})


def save_backbone(path: Path, backbone: Backbone, **more: str) -> None:
    metadata = {"format": BACKBONE_FORMAT, "fingerprint": "x", "backbone": backbone.metadata(), "report": {}, **more}
    save_weights(path, backbone.state_dict(), metadata)


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "work")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained backbone with the layout of the published FER+ weights."""
    path = tmp_path_factory.mktemp("weights") / "backbone.safetensors"
    save_backbone(path, scratch("ferplus", 5))
    return path


@pytest.mark.parametrize(
    ("options", "command"),
    [
        ((), "affect pretrain stn"),
        (("stn.localiser=none",), "affect pretrain backbone"),
        (("stn.localiser=none", "adapt.epochs=2"), "affect adapt"),
    ],
)
def test_missing_weights_are_an_error_that_names_the_command(
    work: Work, options: tuple[str, ...], command: str
) -> None:
    with pytest.raises(MissingStageError, match=command):
        plan_encoder(settings(*options), work)


def test_unknown_weights_are_an_error_and_not_downloaded(work: Work) -> None:
    with pytest.raises(WeightsError, match=r"nowhere\.pth"):
        plan_encoder(settings("stn.localiser=none", "backbone.weights=nowhere.pth"), work)


def test_random_weights_give_a_warning(work: Work) -> None:
    plan = plan_encoder(settings("stn.localiser=none", "backbone.weights=scratch"), work)
    assert "random" in plan.warnings[0]
    assert "random" in plan_start(settings("stn.localiser=none", "adapt.epochs=1"), work).warnings[0]


def test_without_training_the_crop_is_the_whole_picture_with_a_warning(work: Work) -> None:
    config = settings("backbone.weights=scratch")
    plan = plan_encoder(config, work)
    assert ["random" in plan.warnings[0], "whole picture" in plan.warnings[1]] == [True, True]
    stn, _ = build_encoder(config, plan)
    with torch.inference_mode():
        theta, presence = stn.locate(torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8))
    torch.testing.assert_close(theta, torch.eye(2, 3).expand(2, 2, 3))
    assert (presence.sigmoid() > 0.99).all()


def test_the_digest_depends_on_settings_that_change_features_and_no_others(work: Work, weights: Path) -> None:
    base = ("stn.localiser=box", f"backbone.weights={weights}")
    digest = plan_encoder(settings(*base), work).digest
    for option in ("train.epochs=3", "runtime.seed=4", "runtime.workers=3", "features.batch=8", "frames.size=96"):
        assert plan_encoder(settings(*base, option), work).digest == digest, option
    for option in ("stn.margin=0.2", "stn.crop=48", "stn.localiser=none", "backbone.weights=scratch"):
        assert plan_encoder(settings(*base, option), work).digest != digest, option


def test_the_digest_depends_on_the_content_of_the_weights_not_their_path(
    work: Work, weights: Path, tmp_path: Path
) -> None:
    save_stn(work.weights("stn"))
    config = settings(f"backbone.weights={weights}")
    digest = plan_encoder(config, work).digest
    elsewhere = Work(tmp_path / "elsewhere")
    save_stn(elsewhere.weights("stn"))
    assert plan_encoder(config, elsewhere).digest == digest
    save_stn(elsewhere.weights("stn"), seed=1)
    assert plan_encoder(config, elsewhere).digest != digest


def test_weights_adapted_to_another_stn_give_a_warning(work: Work) -> None:
    config = settings("adapt.epochs=1")
    save_stn(work.weights("stn"))
    save_backbone(work.weights("adapted"), scratch(), stn_digest=stn_digest(config, work))
    assert plan_encoder(config, work).warnings == ()
    save_stn(work.weights("stn"), seed=1)
    assert "affect adapt" in plan_encoder(config, work).warnings[0]


def test_the_built_backbone_is_the_saved_one(work: Work, weights: Path) -> None:
    save_stn(work.weights("stn"))
    config = settings(f"backbone.weights={weights}")
    stn, backbone = build_encoder(config, plan_encoder(config, work))
    assert backbone.dialect == "ferplus"
    assert not stn.training
    assert not backbone.training
    crop = torch.rand(2, 3, 48, 48) * 255
    with torch.inference_mode():
        torch.testing.assert_close(backbone.features(crop), scratch("ferplus", 5).eval().features(crop))


def test_an_stn_trained_with_another_view_is_refused(work: Work, weights: Path) -> None:
    save_stn(work.weights("stn"), view=48)
    config = settings(f"backbone.weights={weights}")
    with pytest.raises(WeightsError, match=r"stn\.view 48"):
        build_encoder(config, plan_encoder(config, work))


def test_an_stn_file_is_refused_as_a_backbone(work: Work) -> None:
    save_stn(work.weights("stn"))
    with pytest.raises(WeightsError, match="affect-backbone"):
        build_backbone(work.weights("stn"), 0)


def test_planning_imports_no_torch(work: Work, weights: Path) -> None:
    assert "torch" not in output(plan_encoder_alone, weights, work.root).split()
