"""A shard with damaged data: its reader names the command that repairs it, and that command repairs it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from affect.configs.schema import Config
from affect.pipeline.errors import ShardError
from affect.pipeline.progress import Reporter
from affect.pipeline.records import Work
from affect.pipeline.stages.adapt import adapt
from affect.pipeline.stages.audit import audit
from affect.pipeline.stages.cache_features import cache_features
from affect.pipeline.stages.evaluate import evaluate
from affect.pipeline.stages.extract_frames import extract_frames
from affect.pipeline.stages.pretrain_stn import pretrain_stn
from affect.pipeline.stages.train import train
from affect.pipeline.stages.verify import verify
from affect.pipeline.storage.shard import FEATURES, FRAMES, FrameShard, Shard, is_fresh

QUIET = Reporter(quiet=True)


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, write_data: Callable[[Path], Path], whole_frame_config: Config
) -> tuple[Path, Path]:
    """A data folder, and a work folder with frames and features. Tests must not change them."""
    root = tmp_path_factory.mktemp("damage")
    data, work = write_data(root / "data"), Work(root / "work")
    audit(whole_frame_config, data, work, QUIET)
    extract_frames(whole_frame_config, data, work, QUIET)
    cache_features(whole_frame_config, data, work, QUIET)
    return data, work.root


@pytest.fixture
def ready(made: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Work]:
    """The data, and a copy of the work folder that a test may change."""
    return made[0], Work(Path(shutil.copytree(made[1], tmp_path / "work")))


def flip_in_picture(path: Path, row: int = 9) -> bytes:
    """Flips one bit in a JPEG of the shard. Returns the original bytes of the file."""
    before = path.read_bytes()
    with FrameShard(path) as shard:
        flip(path, before.index(shard.jpegs([row])[0].tobytes()) + 40)
    return before


def flip_in_features(path: Path, name: str = "feature") -> bytes:
    before = path.read_bytes()
    with Shard(path, FEATURES) as shard:
        flip(path, before.index(shard.read(name)[:4].tobytes()) + 3)
    return before


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 16
    path.write_bytes(data)


def test_cache_features_skips_damaged_frames_until_extract_frames_repairs_them(
    ready: tuple[Path, Work], whole_frame_config: Config
) -> None:
    data, work = ready
    before = flip_in_picture(work.frames("b"))
    features = work.features("b").read_bytes()
    work.features("b").unlink()
    for _ in range(2):  # the mark stays, and the video is not used instead
        report = cache_features(whole_frame_config, data, work, QUIET)
        assert report.kept == ("a", "c", "v")
        (problem,) = report.failed
        assert problem.name == "b"
        assert "affect extract-frames" in problem.remedy
        assert not work.features("b").exists()
    assert extract_frames(whole_frame_config, data, work, QUIET).made == ("b",)
    assert work.frames("b").read_bytes() == before
    assert cache_features(whole_frame_config, data, work, QUIET).made == ("b",)
    assert work.features("b").read_bytes() == features
    assert extract_frames(whole_frame_config, data, work, QUIET).made == ()
    assert not list(work.frames("b").parent.glob(".*"))


@pytest.mark.parametrize("name", ["feature", "target"])
def test_train_refuses_damaged_features_until_cache_features_repairs_them(
    ready: tuple[Path, Work], whole_frame_config: Config, name: str
) -> None:
    data, work = ready
    before = flip_in_features(work.features("c"), name)
    for _ in range(2):
        with pytest.raises(ShardError, match=r"c\.h5.* damaged") as caught:
            train(whole_frame_config, data, work, QUIET)
        assert "affect cache-features" in caught.value.remedy
    assert not (work.run("default") / "model.safetensors").exists()
    assert cache_features(whole_frame_config, data, work, QUIET).made == ("c",)
    assert work.features("c").read_bytes() == before
    assert train(whole_frame_config, data, work, QUIET).made == ("default",)


def test_evaluate_refuses_damaged_features(ready: tuple[Path, Work], whole_frame_config: Config) -> None:
    data, work = ready
    train(whole_frame_config, data, work, QUIET)
    flip_in_features(work.features("v"))
    with pytest.raises(ShardError, match="affect cache-features"):
        evaluate(whole_frame_config, data, work, QUIET)
    assert cache_features(whole_frame_config, data, work, QUIET).made == ("v",)
    assert evaluate(whole_frame_config, data, work, QUIET).made == ("validation",)


def test_pretrain_stn_runs_again_after_a_damaged_video_is_repaired(
    ready: tuple[Path, Work], whole_frame_config: Config
) -> None:
    data, work = ready
    small = whole_frame_config.pretrain_stn.model_copy(update={"frames": 64, "epochs": 1})
    config = whole_frame_config.model_copy(update={"pretrain_stn": small})
    flip_in_picture(work.frames("a"))
    report = pretrain_stn(config, data, work, QUIET)
    assert [problem.name for problem in report.failed] == ["a"]
    assert "affect extract-frames" in report.failed[0].remedy
    assert pretrain_stn(config, data, work, QUIET).kept, "nothing has changed"
    assert extract_frames(config, data, work, QUIET).made == ("a",)
    repaired = pretrain_stn(config, data, work, QUIET)
    assert (repaired.made, repaired.failed) == (("stn.safetensors",), ())
    assert repaired.facts["training_frames"] > report.facts["training_frames"]


@pytest.mark.parametrize("by", ["adapt", "train"])
def test_training_on_frames_refuses_damage_until_it_is_repaired(
    ready: tuple[Path, Work], whole_frame_config: Config, by: str
) -> None:
    data, work = ready
    adapted = whole_frame_config.adapt.model_copy(update={"epochs": 1, "frames": 32})
    once = whole_frame_config.train.model_copy(update={"epochs": 1})

    def learn() -> object:
        if by == "adapt":
            return adapt(whole_frame_config.model_copy(update={"adapt": adapted}), data, work, QUIET)
        return train(whole_frame_config.model_copy(update={"train": once}), data, work, QUIET, end_to_end=True)

    flip_in_picture(work.frames("a"))
    for _ in range(2):
        with pytest.raises(ShardError, match=r"a\.h5.* damaged.*affect extract-frames"):
            learn()
    assert extract_frames(whole_frame_config, data, work, QUIET).made == ("a",)
    assert learn()


def test_stages_repair_the_damage_that_verify_finds(ready: tuple[Path, Work], whole_frame_config: Config) -> None:
    data, work = ready
    sound = {path: path.read_bytes() for path in work.root.rglob("*.h5")}
    flip_in_picture(work.frames("a"))
    flip(work.frames("c"), 300)  # in the checksum, which no stage reads
    flip_in_features(work.features("v"))
    assert len(verify(whole_frame_config, work, QUIET).failed) == 3
    assert len(verify(whole_frame_config, work, QUIET).failed) == 3
    assert extract_frames(whole_frame_config, data, work, QUIET).made == ("a", "c")
    assert cache_features(whole_frame_config, data, work, QUIET).made == ("v",)
    assert not verify(whole_frame_config, work, QUIET).failed
    assert {path: path.read_bytes() for path in work.root.rglob("*.h5")} == sound


def test_a_damage_mark_applies_to_one_version_of_a_file(ready: tuple[Path, Work], whole_frame_config: Config) -> None:
    _, work = ready
    path = work.frames("a")
    before = flip_in_picture(path)
    with pytest.raises(ShardError), FrameShard(path) as shard:
        shard.frames(range(len(shard)))
    with FrameShard(work.frames("b")) as shard:
        assert len(shard.frames(range(len(shard)))) == 19
    with pytest.raises(ShardError, match="is marked as damaged"), FrameShard(path):
        pass
    with Shard(work.frames("b"), FRAMES) as older:
        work.frames("b").with_suffix(".new").write_bytes(work.frames("b").read_bytes())
        work.frames("b").with_suffix(".new").replace(work.frames("b"))
        older.mark_corrupt()  # its own file was replaced
    with FrameShard(work.frames("b")):
        pass
    path.unlink()
    path.write_bytes(before)  # as restored from a copy
    with Shard(path, FRAMES) as shard:
        assert is_fresh(path, FRAMES, shard.fingerprint)
