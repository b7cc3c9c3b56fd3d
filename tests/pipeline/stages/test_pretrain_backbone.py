"""Pretraining on FER+: it learns, reports on faces it has not seen, and is kept when nothing changed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from affect.configs.schema import Config, dump
from affect.pipeline.errors import MissingStageError
from affect.pipeline.features.encoder import build_backbone
from affect.pipeline.ingest.ferplus import CLASSES, COLUMNS
from affect.pipeline.progress import Reporter
from affect.pipeline.records import StageReport, Work
from affect.pipeline.stages.pretrain_backbone import pretrain_backbone, score
from affect.pipeline.storage.checkpoint import read_metadata
from affect.tests.child import output
from affect.tests.programs.libraries import run_stage

QUIET = Reporter(quiet=True)
FACES = {"Training": 240, "PublicTest": 40, "PrivateTest": 48}


def write_faces(folder: Path) -> None:
    """FER+ with eight patterns for expressions: a bright band at one of eight heights, noise, and all votes agreed."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    faces, votes = ["emotion,pixels,Usage"], [",".join(COLUMNS)]
    for usage, count in FACES.items():
        for number in range(count):
            kind = number % len(CLASSES)
            pixels = rng.integers(0, 120, (48, 48))
            pixels[6 * kind : 6 * kind + 6] += 120
            faces.append(f"0,{' '.join(map(str, pixels.ravel()))},{usage}")
            votes.append(f"{usage},fer{number}.png," + ",".join("10" if k == kind else "0" for k in range(10)))
    (folder / "fer2013.csv").write_text("\n".join(faces) + "\n")
    (folder / "fer2013new.csv").write_text("\n".join(votes) + "\n")


def settings(tiny_config: Config, **changes: object) -> Config:
    own = {"epochs": 8, "batch": 24, "learning_rate": 1e-3, "ema": 0.0} | changes
    return tiny_config.model_copy(update={"pretrain_backbone": tiny_config.pretrain_backbone.model_copy(update=own)})


@pytest.fixture(scope="module")
def done(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path, Work, StageReport]:
    base = tmp_path_factory.mktemp("fer")
    write_faces(base / "ferplus")
    config, work = settings(tiny_config), Work(base / "work")
    return config, base / "ferplus", work, pretrain_backbone(config, base / "ferplus", work, QUIET)


def test_pretraining_learns_and_reports_on_private_test(
    done: tuple[Config, Path, Work, StageReport],
) -> None:
    _, _, work, report = done
    assert report.made == ("backbone.safetensors",)
    assert report.facts["faces"] == FACES["PrivateTest"]
    assert report.facts["accuracy"] > 0.5, report.facts
    confusion = np.array(report.facts["confusion"])
    assert confusion.sum(1).tolist() == [6] * 8
    assert np.trace(confusion) / confusion.sum() == pytest.approx(report.facts["accuracy"])
    assert (work.root / "weights" / "backbone-confusion.png").read_bytes().startswith(b"\x89PNG")
    assert not list((work.root / "weights").glob("*.state"))


def test_the_weights_know_their_dialect_and_what_they_reached(done: tuple[Config, Path, Work, StageReport]) -> None:
    _, _, work, report = done
    metadata = read_metadata(work.weights("backbone"))
    assert metadata["backbone"]["dialect"] == "torchvision"
    assert metadata["report"]["accuracy"] == report.facts["accuracy"]
    assert len(metadata["report"]["history"]) == 8
    assert build_backbone(work.weights("backbone"), 0).classes == CLASSES


def test_report_is_kept_while_nothing_changed_without_importing_torch(
    done: tuple[Config, Path, Work, StageReport], tmp_path: Path
) -> None:
    config, ferplus, work, _ = done
    (tmp_path / "config.yaml").write_text(dump(config))
    report = json.loads(output(run_stage, "pretrain_backbone", tmp_path / "config.yaml", ferplus, work.root))
    assert report["kept"]
    assert not report["made"]
    assert report["facts"]["accuracy"]
    assert "torch" not in report["libraries"]


def test_backbone_is_trained_again_when_settings_or_faces_change(
    done: tuple[Config, Path, Work, StageReport], tmp_path: Path
) -> None:
    config, ferplus, work, _ = done
    mine, own = tmp_path / "ferplus", Work(tmp_path / "work")
    shutil.copytree(ferplus, mine)
    shutil.copytree(work.root, own.root)
    brief = settings(config, epochs=0)
    assert pretrain_backbone(brief, mine, own, QUIET).made
    assert pretrain_backbone(brief, mine, own, QUIET).kept
    path = mine / "fer2013new.csv"
    path.write_text(path.read_text().replace("10,0,0,0,0,0,0,0,0,0", "8,0,2,0,0,0,0,0,0,0", 1))
    assert pretrain_backbone(brief, mine, own, QUIET).made


def test_a_missing_ferplus_folder_is_an_error_with_a_remedy(tiny_config: Config, tmp_path: Path) -> None:
    with pytest.raises(MissingStageError, match=r"fer2013\.csv.*--ferplus"):
        pretrain_backbone(tiny_config, tmp_path, Work(tmp_path / "work"), QUIET)


def test_trains_on_the_demo_and_leaves_out_faces_without_a_majority(
    tiny_config: Config, demo_data: Path, tmp_path: Path
) -> None:
    config = settings(tiny_config, epochs=1, labels="majority")
    report = pretrain_backbone(config, demo_data / "ferplus", Work(tmp_path), QUIET)
    rows = [
        line for line in (demo_data / "ferplus" / "fer2013new.csv").read_text().splitlines() if "PrivateTest" in line
    ]
    assert 0 < report.facts["faces"] < len(rows)


def test_score_counts_by_hand() -> None:
    report = score(np.array([0, 1, 1, 2]), np.array([0, 0, 1, 2]), ("a", "b", "c", "d"))
    assert report["accuracy"] == 0.75
    assert report["per_class"] == {"a": 0.5, "b": 1.0, "c": 1.0, "d": None}
    assert report["confusion"] == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
