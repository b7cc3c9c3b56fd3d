"""affect live reads the newest frame and keeps no queue. It ends with its source, after --seconds and on Ctrl-C."""

import http.server
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from affect.configs.schema import Config, load
from affect.pipeline.errors import VideoError
from affect.pipeline.inference.predictor import Predictor
from affect.pipeline.inference.streaming import stream_live
from affect.pipeline.ingest.video.live import CapturedFrame, LatestFrame, Wait
from affect.pipeline.ingest.video.timeline import read_timeline
from affect.pipeline.progress import Reporter
from affect.pipeline.stages.live import live

QUIET = Reporter(quiet=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_run: Callable[..., Path]) -> Path:
    return tiny_run(tmp_path_factory.mktemp("run"), "head.bidirectional=false")


@pytest.fixture(scope="module")
def config(run: Path) -> Config:
    return load(str(run / "config.yaml"))


def endless(wait: Wait) -> Iterator[CapturedFrame]:
    """Hundreds of frames a second: faster than any model here."""
    picture, number = np.zeros((48, 64, 3), np.uint8), 0
    while wait(0.004):
        yield CapturedFrame(number, number / 1000, picture)
        number += 1


def test_late_frames_are_skipped_and_not_queued(run: Path, config: Config) -> None:
    network = Predictor(run, config)
    made = 0

    def counted(wait: Wait) -> Iterator[CapturedFrame]:
        nonlocal made
        for arrival in endless(wait):
            made = arrival.number
            yield arrival

    numbers, late = [], 0
    with LatestFrame(counted) as newest:
        for moment, _ in stream_live(network, newest):
            numbers.append(moment.frame)
            late += moment.late
            before = made
            if len(numbers) >= 3 and (late or len(numbers) >= 300):  # a busy machine may make few at first
                break
            arrival, passed = next(newest)  # the next one to be had is one that came since, not one that waited
            assert arrival.number >= before - 1
            numbers.append(arrival.number)
            late += passed
    assert numbers == sorted(set(numbers))
    assert late > 0
    assert late + len(numbers) == numbers[-1] + 1, "every frame was looked at or counted as late"


def test_an_error_of_the_source_is_raised_in_the_reader() -> None:
    def broken(wait: Wait) -> Iterator[CapturedFrame]:
        yield CapturedFrame(0, 0.0, np.zeros((8, 8, 3), np.uint8))
        raise VideoError("the camera fell", "Pick it up.")

    with LatestFrame(broken) as newest, pytest.raises(VideoError, match="fell"):
        for _ in newest:
            pass


def test_a_source_without_frames_is_an_error_after_the_deadline() -> None:
    def silent(wait: Wait) -> Iterator[CapturedFrame]:
        wait(60.0)
        yield from ()

    with LatestFrame(silent, deadline=0.2) as newest, pytest.raises(VideoError, match="no frame"):
        next(newest)


def test_a_file_runs_at_its_own_pace_as_json_lines(
    run: Path, config: Config, video_with_sound: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    overlay = tmp_path / "seen.mp4"
    facts = live(config, video_with_sound, run, QUIET, as_json=True, overlay=overlay, emit=lines.append)
    rows = [json.loads(line) for line in lines]
    numbers = [it["frame"] for it in rows]
    assert set(rows[0]) == {"frame", "time", "face", "valence", "arousal", "box", "late"}
    assert numbers == sorted(set(numbers))
    times = read_timeline(video_with_sound).time
    assert [it["time"] for it in rows] == pytest.approx(times[numbers] - times[0], abs=1e-4)
    assert facts["frames"] == len(rows)
    assert facts["frames"] + facts["late"] == numbers[-1] + 1
    assert numbers[-1] == len(times) - 1, "the last frame is not late"
    assert len(read_timeline(overlay).time) == len(rows)


def test_ctrl_c_ends_live_cleanly(run: Path, config: Config, video_with_sound: Path, tmp_path: Path) -> None:
    lines: list[str] = []

    def emit(line: str) -> None:
        lines.append(line)
        if len(lines) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    overlay = tmp_path / "seen.mp4"
    before = signal.getsignal(signal.SIGINT)
    facts = live(config, video_with_sound, run, QUIET, as_json=True, overlay=overlay, emit=emit)
    assert facts["frames"] == len(lines) == 2
    assert len(read_timeline(overlay).time) == 2, "the overlay video is complete"
    assert signal.getsignal(signal.SIGINT) is before


def test_it_stops_after_its_seconds_and_when_the_reader_closes(
    run: Path, config: Config, video_with_sound: Path
) -> None:
    lines: list[str] = []
    live(config, video_with_sound, run, QUIET, seconds=0.3, as_json=True, emit=lines.append)
    *earlier, last = [json.loads(line)["time"] for line in lines]
    assert all(time < 0.3 for time in earlier)
    assert last >= 0.3

    def gone(line: str) -> None:
        raise BrokenPipeError

    assert live(config, video_with_sound, run, QUIET, as_json=True, emit=gone)["frames"] == 1


def test_a_missing_source_or_model_is_an_error(run: Path, config: Config, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="no such file"):
        live(config, tmp_path / "nope.mp4", run, QUIET)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(VideoError, match="cannot be opened"):
        live(config, tmp_path / "text.mp4", run, QUIET)


@pytest.fixture
def camera() -> Iterator[tuple[str, list[int]]]:
    """The URL of a network camera, which sends pictures of a size as MJPEG, and how many it has sent so far."""
    sent: list[int] = []

    class Camera(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/stream" else 404)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
            self.end_headers()
            for level in range(40) if self.path == "/stream" else ():
                coded = cv2.imencode(".jpg", np.full((48, 64, 3), 6 * level, np.uint8))[1].tobytes()
                head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(coded)}\r\n\r\n"
                self.wfile.write(head.encode() + coded + b"\r\n")
                sent.append(level)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", sent
    server.shutdown()
    server.server_close()


def test_a_network_camera_can_be_read(run: Path, config: Config, camera: tuple[str, list[int]]) -> None:
    url, sent = camera
    lines: list[str] = []
    facts = live(config, f"{url}/stream", run, QUIET, as_json=True, emit=lines.append)
    rows = [json.loads(line) for line in lines]
    assert len(sent) == 40
    assert facts["frames"] + facts["late"] == rows[-1]["frame"] + 1 >= 38
    assert all(0 <= it["box"][0] < it["box"][2] <= 64 and it["box"][3] <= 48 for it in rows)
    with pytest.raises(VideoError, match="cannot be opened"):
        live(config, f"{url}/nothing", run, QUIET)
