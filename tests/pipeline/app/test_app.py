"""The app as its user meets it: a page in a real browser, and a server that keeps to itself."""

import csv
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from affect.cli import app as cli
from affect.configs.schema import load
from affect.models.affect_net import AffectNet
from affect.models.backbone import scratch
from affect.models.head import HeadSettings, TemporalHead
from affect.models.stn import SpatialTransformer
from affect.pipeline.app.jobs import safe_name
from affect.pipeline.ingest.synthetic.video import SyntheticVideo, draw_video
from affect.pipeline.ingest.video.timeline import read_timeline
from affect.pipeline.learning.model_file import NAME, save_model
from typer.testing import CliRunner

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

SETTINGS = (
    "frames.size=64", "stn.view=32", "stn.crop=32", "clip.length=16", "clip.hop=8", "head.project=8", "head.hidden=8",
    "head.dense=[8]", "predict.face_threshold=0", "features.batch=16",
)  # fmt: skip
SET = [option for setting in SETTINGS for option in ("--set", setting)]
MOST = 1
"""MiB of an upload."""
ENTER = "\ue007"


@dataclass(frozen=True)
class Served:
    port: int
    scratch: Path
    process: "subprocess.Popen[str]"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model with random weights."""
    folder = tmp_path_factory.mktemp("run")
    config = load("demo", SETTINGS)
    torch.manual_seed(1)
    net = AffectNet(
        SpatialTransformer("crop", 32, 32, 0.1), scratch(), TemporalHead(2048, HeadSettings(**config.head.model_dump()))
    )
    net.eval().head.calibrate(torch.rand(2048), torch.rand(2048) + 0.1)
    save_model(folder / NAME, net, fingerprint="f", encoder="e", config=config.model_dump(mode="json"))
    return folder


@pytest.fixture(scope="module")
def served(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`affect app` with a tiny model, in a process of its own, ended as by Ctrl-C; nothing of it stays."""
    place = tmp_path_factory.mktemp("scratch")
    command = [sys.executable, "-m", "affect", "app", "--model", str(run), "--port", "0", "--most-mib", str(MOST)]
    command += ["--allow-host", "behind.example"]
    command += SET
    environment = {**os.environ, "TMPDIR": str(place)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr
        line = process.stderr.readline()
        assert line.startswith("http://127.0.0.1:"), line
        yield Served(int(line.split(":")[2].split("/")[0]), place, process)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
    assert not list(place.glob("affect-app-*")), "temporary files stay"


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "talk.mp4"
    draw_video(SyntheticVideo(path, 5, 40, 25.0, 1, 160, 120, variable=True))
    return path


def ask(browser: "WebDriver", script: str) -> Any:
    return browser.execute_script(f"return {script}")


def wait(browser: "WebDriver", script: str) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 250, poll_frequency=0.1).until(lambda _: ask(browser, script))


def request(port: int, method: str, path: str, body: bytes = b"", **headers: str) -> http.client.HTTPResponse:
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    line.request(method, path, body, {name.replace("_", "-"): it for name, it in headers.items()})
    response = line.getresponse()
    response.body = response.read()  # pyright: ignore[reportAttributeAccessIssue]
    line.close()
    return response


def test_a_dropped_video_is_predicted_plays_and_can_be_downloaded(
    browser: "WebDriver", served: Served, video: Path, tmp_path: Path
) -> None:
    browser.get(f"http://127.0.0.1:{served.port}/")
    copy = shutil.copy(video, tmp_path / "my talk.mp4")
    other = shutil.copy(video, tmp_path / "another.mp4")
    browser.find_element("css selector", "input[type=file]").send_keys(f"{copy}\n{other}")
    wait(browser, "document.querySelectorAll('.job').length === 2")
    wait(browser, "document.querySelectorAll('.job.done').length === 2")
    frames = len(read_timeline(video).time)
    statuses = ask(browser, "[...document.querySelectorAll('.job .status')].map(it => it.textContent)")
    assert statuses == [f"{frames} frames"] * 2
    assert ask(browser, "document.querySelectorAll('.job .panel .line[d^=M]').length") == 4
    wait(browser, "document.querySelector('.job video').readyState >= 3")
    browser.find_element("css selector", ".job .play").send_keys(ENTER)
    wait(browser, "Number(document.querySelector('.job .player').dataset.row) > 2")
    links = ask(browser, "[...document.querySelectorAll('.job:last-child a')].map(it => [it.pathname, it.download])")
    assert [name for _, name in links] == ["my_talk.csv", "my_talk.html"]
    table, page = (request(served.port, "GET", path).body.decode() for path, _ in links)  # pyright: ignore
    assert table.startswith("frame,time,face,valence,arousal")
    assert table.count("\n") == frames + 1
    assert 'class="clip"' in page
    assert "my_talk" in page
    assert not list(served.scratch.rglob("*.mp4")), "uploads are kept"
    browser.find_element("css selector", ".job:last-child button.button").send_keys(ENTER)
    wait(browser, "document.querySelectorAll('.job').length === 1")


def test_the_error_for_a_broken_video_states_the_fault(browser: "WebDriver", served: Served, tmp_path: Path) -> None:
    browser.get(f"http://127.0.0.1:{served.port}/")
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 200)
    (tmp_path / "notes.txt").write_text("words")
    field = browser.find_element("css selector", "input[type=file]")
    field.send_keys(str(tmp_path / "notes.txt"))
    assert "notes.txt is not a video" in ask(browser, "document.querySelector('.error').textContent")
    field.send_keys(str(tmp_path / "broken.mp4"))
    wait(browser, "document.querySelector('.job.failed')")
    assert "cannot be read as a video" in ask(browser, "document.querySelector('.job .status').textContent")
    assert str(served.scratch) not in ask(browser, "document.body.textContent")


def test_only_requests_from_its_own_page_are_accepted(served: Served) -> None:
    assert request(served.port, "GET", "/").status == 200
    assert request(served.port, "GET", "/", Host="example.org").status == 403
    assert request(served.port, "PUT", "/videos/new/x.mp4", b"1", Sec_Fetch_Site="cross-site").status == 403
    for name in ("localhost:1", "127.0.0.1:9000", "[::1]:80", "behind.example:443"):  # a forwarded port, a proxy
        assert request(served.port, "GET", "/", Host=name).status == 200
    refused = request(served.port, "GET", "/", Host="evil.example")
    assert b"--allow-host evil.example" in refused.body  # pyright: ignore[reportAttributeAccessIssue]
    link: dict[str, Any] = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert request(served.port, "GET", "/", **link).status == 200
    assert request(served.port, "PUT", "/videos/new/x.mp4", b"1", **link).status == 403
    assert request(served.port, "GET", "/app.js", **link).status == 403
    assert request(served.port, "GET", "/", **{**link, "Sec_Fetch_Dest": "iframe"}).status == 403
    assert request(served.port, "GET", "/", Host="evil.example", **link).status == 403
    policy = request(served.port, "GET", "/").getheader("Content-Security-Policy") or ""
    assert "default-src 'none'" in policy


def test_uploads_are_bounded_and_only_videos(served: Served) -> None:
    assert request(served.port, "PUT", "/videos/new/x.exe", b"1").status == 415
    assert request(served.port, "GET", "/videos/nothing/csv").status == 404
    assert request(served.port, "GET", "/videos/../../etc/passwd").status == 404
    line = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    line.putrequest("PUT", "/videos/new/large.mp4")
    line.putheader("Content-Length", str(MOST * 2**20 + 1))
    line.endheaders()
    assert line.getresponse().status in (400, 413)
    line.close()


def test_predict_makes_the_page_too(run: Path, video: Path, tmp_path: Path) -> None:
    arguments = ["predict", str(video), "--model", str(run), "--out", str(tmp_path), "--report", "--quiet", *SET]
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    page = (tmp_path / f"{video.stem}.html").read_text(encoding="utf-8")
    clip = json.loads(re.findall(r'class="clip">(.*?)</script>', page)[0])
    with (tmp_path / f"{video.stem}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert clip["rows"]["frame"] == [int(row["frame"]) for row in rows]
    assert clip["rows"]["arousal"] == pytest.approx([float(row["arousal"]) for row in rows], abs=6e-4)
    assert clip["video"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd.mp4", "passwd.mp4"), ("..\\x.MOV", "x.mov"), ("<b>ü y</b>.mp4", "b.mp4"),
        (".mp4", None), ("...mp4", "video.mp4"), ("a" * 300 + ".webm", "a" * 80 + ".webm"), ("x.html", None),
        ("", None),
    ],
)  # fmt: skip
def test_names_are_made_safe(given: str, kept: str | None) -> None:
    assert safe_name(given) == kept
