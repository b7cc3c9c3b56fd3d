"""A disk that cannot read a video is not taken for the end of the video."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from affect.configs.schema import load
from affect.pipeline.errors import VideoError
from affect.pipeline.ingest.video.decode import decode, probe
from affect.pipeline.ingest.video.pyav_decoder import frames_by_pyav
from affect.pipeline.ingest.video.timeline import read_timeline
from affect.pipeline.progress import Reporter
from affect.pipeline.records import Work
from affect.pipeline.stages.extract_frames import extract_frames

IMAGE_BYTES = 16 << 20


class Disk:
    """A file system in a file. `lose` cuts the file, so that the disk reports an error for what was behind the cut."""

    def __init__(self, folder: Path) -> None:
        self.image, self.root = folder / "image", folder / "disk"
        self.root.mkdir()
        self.image.write_bytes(b"")
        with self.image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        self._run("mkfs.ext4", "-q", "-F", "-O", "^has_journal", str(self.image))
        self.mount()

    def mount(self) -> None:
        self._run("mount", "-o", "loop,noatime", str(self.image), str(self.root))

    def unmount(self) -> None:
        self._run("umount", str(self.root))

    def lose(self, data: bytes) -> None:
        """Loses what begins with these bytes, and all that is behind it on the disk."""
        self.unmount()  # else the system would still have the file in memory
        place = self.image.read_bytes().find(data)
        assert place > 0
        self.mount()
        with self.image.open("r+b") as file:
            file.truncate(place // 4096 * 4096)

    @staticmethod
    def _run(*words: str) -> None:
        subprocess.run(words, check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    try:
        disk = Disk(tmp_path)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no disk of our own can be mounted here")
    yield disk
    subprocess.run(["umount", "-l", disk.root], check=True)


def noisy_video(path: Path, frames: int) -> Path:
    """About 20 KB per frame."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", options={"movflags": "faststart"} if path.suffix == ".mp4" else {}) as out:
        stream = out.add_stream("mpeg4" if path.suffix == ".avi" else "libx264", rate=25, options={"qscale": "2"})
        stream.width = stream.height = 192
        stream.pix_fmt = "yuv420p"
        for _ in range(frames):
            picture = rng.integers(0, 256, (192, 192, 3), dtype=np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts"])
def test_a_video_that_the_disk_cannot_read_is_an_error_with_a_remedy(disk: Disk, suffix: str) -> None:
    path = noisy_video(disk.root / f"talk{suffix}", 40)
    data = path.read_bytes()
    assert probe(path).frames == 40
    timeline = read_timeline(path)
    disk.lose(data[len(data) // 2 :][:64])
    calls: list[Callable[[], object]] = [
        lambda: probe(path),
        lambda: list(decode(path, 64)),
        lambda: list(frames_by_pyav(path, timeline, 64, 0, 40, lambda: None)),
    ]
    for call in calls:
        with pytest.raises(
            VideoError, match=r"talk.*: the disk cannot read it after byte \d[\d,]* \(Input/output"
        ) as e:
            call()
        assert "Restore the file from a copy" in e.value.remedy


def test_the_other_videos_of_a_failing_disk_are_done(disk: Disk, tmp_path: Path) -> None:
    data = tmp_path / "data"
    labels = data / "VA_Set" / "Train_Set"
    labels.mkdir(parents=True)
    for name in "ab":
        noisy_video(tmp_path / f"{name}.mp4", 40)
        shutil.copy(tmp_path / f"{name}.mp4", disk.root)
        (labels / f"{name}.txt").write_text("valence,arousal\n" + "0.1,0.1\n" * 40)
    (data / "videos").mkdir()
    (data / "videos" / "a.mp4").symlink_to(tmp_path / "a.mp4")
    (data / "videos" / "b.mp4").symlink_to(disk.root / "b.mp4")
    video = (tmp_path / "b.mp4").read_bytes()
    disk.lose(video[len(video) // 2 :][:64])
    config = load("demo", ["runtime.workers=0", "frames.size=48"])
    report = extract_frames(config, data, Work(tmp_path / "work"), Reporter(quiet=True))
    assert report.made == ("a",)
    (problem,) = report.failed
    assert problem.name == "b"
    assert "Input/output error" in problem.message
    assert "the disk" in problem.remedy
