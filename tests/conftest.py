"""Fixtures for all tests: a small demo data set, short videos, small configs, a browser. Marks the slow tests."""

import fcntl
import os
import runpy
import shutil
import signal

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the commands set it: several tests at once share the cores

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from affect.configs.schema import Config
from affect.pipeline.ingest.synthetic import draw_demo_data
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from affect.pipeline.learning.stn.train_data import BoxedImages
    from affect.pipeline.records import Work
    from selenium.webdriver.chrome.webdriver import WebDriver

SMALL: dict[str, Any] = {"videos": 8, "frames": 24, "seed": 3, "faces": 80, "workers": 2}
SMALL_RESNET = Path(__file__).parent / "small_resnet"
if str(SMALL_RESNET) not in os.environ.get("PYTHONPATH", ""):
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(SMALL_RESNET), os.environ.get("PYTHONPATH"))))
runpy.run_path(str(SMALL_RESNET / "sitecustomize.py"))  # this process has started without it
REAL = Path(__file__).resolve().parents[2] / "shared" / "data"


# How long an example takes depends on what else this machine does.
settings.register_profile("affect", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("affect")

# A shell ignores Ctrl-C in its background jobs, and the commands that a test starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Files whose tests train networks, start processes or decode many videos; those that take the longest come first.
SLOW_FILES = (
    "pipeline/stages/test_resume.py",
    "pipeline/stages/test_cache_features.py",
    "pipeline/learning/test_distributed.py",
    "commands/test_cli.py",
    "test_faults.py",
    "test_processes.py",
    "pipeline/stages/test_export.py",
    "pipeline/api/test_model.py",
    "pipeline/stages/test_train.py",
    "pipeline/stages/test_train_end_to_end.py",
    "pipeline/stages/test_pretrain_stn.py",
    "pipeline/stages/test_report.py",
    "pipeline/ingest/test_synthetic.py",
    "pipeline/learning/test_end_to_end.py",
    "models/test_portable.py",
    "models/test_backbone.py",
    "pipeline/ingest/video/test_frame_numbers.py",
    "pipeline/ingest/video/test_video.py",
    "test_machines.py",
    "test_odd_inputs.py",
    "test_dask_cluster.py",
    "test_cluster.py",
    "pipeline/storage/test_damage.py",
    "pipeline/stages/test_predict.py",
    "pipeline/stages/test_adapt.py",
    "pipeline/stages/test_pretrain_backbone.py",
    "pipeline/stages/test_submit.py",
    "pipeline/stages/test_evaluate.py",
    "pipeline/stages/test_tune.py",
    "pipeline/stages/test_verify.py",
    "pipeline/stages/test_extract_frames.py",
    "pipeline/stages/test_predict_together.py",
    "pipeline/stages/test_live.py",
    "pipeline/stages/test_detect_boxes.py",
    "pipeline/features/test_stn_init.py",
    "pipeline/features/test_segments.py",
    "pipeline/ingest/video/test_video_odd.py",
    "pipeline/ingest/video/test_shape.py",
    "pipeline/visualization/test_overlay.py",
    "pipeline/visualization/test_clip.py",
    "pipeline/inference/test_tracking.py",
    "pipeline/app/test_app.py",
    "pipeline/stages/test_doctor.py",
    "pipeline/learning/stn/test_negatives.py",
    "test_torture.py",
)
PARTLY_SLOW = {"commands/test_cli.py", "test_odd_inputs.py"}
"""Files of these in which only the tests with a slow fixture or a mark of their own are slow."""
SLOW_FIXTURES = {"demo_data", "demo_frames", "tiny_run", "chromium", "real"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks slow tests and puts the longest files first. A worker runs whole files, so a long file at the end would
    delay the result."""
    here = Path(__file__).parent
    rank = {here / name: number for number, name in enumerate(SLOW_FILES)}
    whole = {here / name for name in SLOW_FILES if name not in PARTLY_SLOW}
    for item in items:
        if item.path in whole or SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that one xdist worker makes; the others wait for it."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    root, finished = base / name, base / f"{name}.finished"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not finished.exists():
            make(root)
            finished.touch()
    return root


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo data folder: 8 ordinary videos of about 24 frames, and quirky ones. Read only: copy it to change it."""
    return made_once(tmp_path_factory, "demo_data", lambda root: draw_demo_data(root, **SMALL))


@pytest.fixture(scope="session")
def demo_frames(demo_data: Path, tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with the audit and the frames of `demo_data`, 64 x 64. Read only: copy it to add something."""
    from affect.pipeline.progress import Reporter
    from affect.pipeline.records import Work
    from affect.pipeline.stages.audit import audit
    from affect.pipeline.stages.extract_frames import extract_frames

    def make(root: Path) -> None:
        audit(tiny_config, demo_data, Work(root), Reporter(quiet=True))
        extract_frames(tiny_config, demo_data, Work(root), Reporter(quiet=True))

    return made_once(tmp_path_factory, "demo_frames", make)


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real videos and labels; skips where it is absent."""
    if not REAL.is_dir():
        pytest.skip("no real data beside this checkout")
    return REAL


@pytest.fixture
def full_resnet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real ResNet-50, also in processes that the test starts; the other tests use a small one
    (small_resnet/sitecustomize.py)."""
    import torchvision.models

    paths = os.environ["PYTHONPATH"].split(os.pathsep)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path != str(SMALL_RESNET)))
    monkeypatch.setattr("affect.models.backbone.resnet50", torchvision.models.resnet50)


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[WebDriver]":
    """A headless Chromium; skips where there is none (Debian: apt-get install chromium chromium-driver)."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("no chromium and chromedriver on this machine")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--no-first-run", "--mute-audio", "--window-size=1280,900",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):  # fmt: skip
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path_factory.mktemp("downloads"))})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(driver))
    driver.set_page_load_timeout(60)
    driver.set_script_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium: "WebDriver") -> "Iterator[WebDriver]":
    """Chromium with a fresh page, 1280 pixels wide, in light mode. A warning or error on the console fails the test."""
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.get("about:blank")
    chromium.get_log("browser")
    yield chromium
    complaints = [entry["message"] for entry in chromium.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert not complaints


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    """A config for `demo_data` whose stages take seconds: 64-pixel frames, 32-pixel crops, 1 or 2 epochs."""
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
def whole_frame_config(tiny_config: Config) -> Config:
    """A config that needs no stage before extract-frames: the backbone has random weights and sees whole frames."""
    return Config.model_validate(
        tiny_config.model_dump()
        | {
            "stn": {"localiser": "none", "view": 32, "crop": 32},
            "backbone": {"weights": "scratch"},
            "adapt": {"epochs": 0},
            "train": {"epochs": 3, "batch": 4, "ema": 0.9, "patience": 3, "state_minutes": 1e-9},
            "runtime": {"workers": 0, "device": "cpu", "precision": "fp32"},
        }
    )


@pytest.fixture
def cached_work(whole_frame_config: Config, tmp_path: Path) -> "Work":
    """A work folder for `whole_frame_config`: random features of six subjects. Two features are the targets."""
    import numpy as np
    from affect.pipeline.features.encoder import plan_encoder
    from affect.pipeline.records import Work
    from affect.pipeline.storage.shard import FEATURES, ShardWriter

    work = Work(tmp_path)
    encoder = plan_encoder(whole_frame_config, work).digest
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
def faces() -> "Callable[..., BoxedImages]":
    """A function that draws simple pictures with a face and its box, for the training of an STN."""
    import torch
    import torch.nn.functional as F
    from affect.models.theta import theta_from_corners
    from affect.pipeline.learning.stn.train_data import BoxedImages

    def draw(n: int, side: int = 64, seed: int = 0, without: float = 0.0) -> BoxedImages:
        """White ellipses with two dark eyes on coloured clouds, and their boxes."""
        generator = torch.Generator().manual_seed(seed)

        def uniform(low: float, high: float) -> torch.Tensor:
            return low + (high - low) * torch.rand(n, 1, 1, generator=generator)

        steps = (2 * torch.arange(side) + 1) / side - 1
        across, down = steps.expand(side, side), steps[:, None].expand(side, side)
        half, centre_x, centre_y = uniform(0.2, 0.4), uniform(-0.4, 0.4), uniform(-0.4, 0.4)
        high = half * 1.3
        visible = uniform(0, 1) >= without
        x, y = (across - centre_x) / half, (down - centre_y) / high
        skin = (x.square() + y.square() < 1) & visible
        eyes = skin & ((x.abs() - 0.4).square() + (y + 0.2).square() < 0.03)
        clouds = F.interpolate(torch.rand(n, 3, 6, 6, generator=generator) * 180, side, mode="bilinear")
        pixels = torch.where(skin[:, None], 250.0, clouds)
        pixels = torch.where(eyes[:, None], 10.0, pixels)
        edges = (centre_x - half, centre_y - high, centre_x + half, centre_y + high)
        theta = theta_from_corners((torch.cat([edge[:, 0] for edge in edges], 1) + 1) / 2, 1, 1)
        return BoxedImages(pixels.to(torch.uint8), theta, visible[:, 0, 0])

    return draw


@pytest.fixture(scope="session")
def write_video() -> Callable[[Path, int], Path]:
    """A function that writes a video of random coloured squares, 96 x 96 at 25 frames per second."""
    import av
    import numpy as np

    def write(path: Path, frames: int) -> Path:
        draw = np.random.default_rng(0)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.width = stream.height = 96
            stream.pix_fmt = "yuv420p"
            for _ in range(frames):
                pixels = draw.integers(0, 256, (6, 6, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode(None))
        return path

    return write


@pytest.fixture(scope="session")
def write_data(write_video: Callable[[Path, int], Path]) -> Callable[[Path], Path]:
    """A function that writes a data folder: four videos of 18 to 21 frames with annotations and boxes. a, b and c are
    in the training split, v in the validation split."""
    import numpy as np

    def write(root: Path) -> Path:
        splits = {"a": "Train_Set", "b": "Train_Set", "c": "Train_Set", "v": "Validation_Set"}
        (root / "videos").mkdir(parents=True)
        (root / "bounding_boxes").mkdir()
        for number, (name, split) in enumerate(splits.items()):
            frames = 18 + number
            write_video(root / "videos" / f"{name}.mp4", frames)
            values = np.random.default_rng(number).uniform(-1, 1, (frames, 2)).round(3)
            annotation = root / "VA_Set" / split / f"{name}.txt"
            annotation.parent.mkdir(parents=True, exist_ok=True)
            annotation.write_text("valence,arousal\n" + "".join(f"{v},{a}\n" for v, a in values.tolist()))
            boxes = "".join(f"{row},{20 + row},10,{60 + row},80\n" for row in range(1, frames + 1))
            (root / "bounding_boxes" / f"{name}.csv").write_text(f"frame,x0,y0,x1,y1\n{boxes}")
        return root

    return write


@pytest.fixture(scope="session")
def tiny_run() -> "Callable[..., Path]":
    """A function that writes the folder of a run: a small model with random weights, whose crop and face probability
    depend on the picture, and its config. Arguments: the folder, settings, and optionally a backbone."""
    import torch
    from affect.configs.schema import dump, load
    from affect.models.affect_net import AffectNet
    from affect.models.backbone import Backbone, scratch
    from affect.models.head import HeadSettings, TemporalHead
    from affect.models.stn import SpatialTransformer
    from affect.pipeline.learning.model_file import NAME, save_model

    small = (
        "frames.size=64", "stn.view=32", "stn.crop=32", "clip.length=16", "clip.hop=8", "head.project=8",
        "head.hidden=8", "head.dense=[8]", "runtime.device=cpu", "runtime.precision=fp32",
    )  # fmt: skip

    def make(folder: Path, *more: str, backbone: Backbone | None = None) -> Path:
        config = load("demo", [*small, *more])
        torch.manual_seed(1)
        stn = SpatialTransformer("crop", 32, 32, 0.1)
        if config.stn.localiser == "stn":
            for layer in (list(stn.localiser.says.children())[-1], stn.localiser.presence):
                assert isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)
                torch.nn.init.normal_(layer.weight, std=0.5)
        net = AffectNet(stn, backbone or scratch(), TemporalHead(2048, HeadSettings(**config.head.model_dump()))).eval()
        net.head.calibrate(torch.rand(2048), torch.rand(2048) + 0.1)
        save_model(folder / NAME, net, fingerprint=f"f{more}", encoder="e", config=config.model_dump(mode="json"))
        (folder / "config.yaml").write_text(dump(config), encoding="utf-8")
        return folder

    return make


@pytest.fixture(scope="session")
def video_with_sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of one drawn person with AAC sound: 40 frames at uneven times, 160 x 120, about 1.6 s."""
    import av
    import numpy as np
    from affect.pipeline.ingest.synthetic.video import SyntheticVideo, draw_video

    folder = tmp_path_factory.mktemp("talk")
    silent, path = folder / "silent.mp4", folder / "talk.mp4"
    draw_video(SyntheticVideo(silent, 5, 40, 25.0, 1, 160, 120, variable=True))
    with av.open(str(silent)) as source, av.open(str(path), "w") as out:
        picture = source.streams.video[0]
        new, sound = out.add_stream_from_template(picture), out.add_stream("aac", rate=16000)
        assert isinstance(sound, av.AudioStream)
        sound.codec_context.layout = "mono"
        for packet in source.demux(picture):
            if packet.dts is not None:
                packet.stream = new
                out.mux(packet)
        for start in range(0, 25600, 1024):
            wave = np.sin(np.arange(start, start + 1024, dtype=np.float32)[None] * 0.17).astype(np.float32) * 0.3
            frame = av.AudioFrame.from_ndarray(wave, "fltp", "mono")
            frame.sample_rate, frame.pts = 16000, start
            out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    return path
