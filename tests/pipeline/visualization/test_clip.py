"""A video's own page, in a real browser: it plays in step, seeks, can be used by keyboard, and needs nothing else."""

import base64
import csv
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from affect.configs.schema import Config
from affect.pipeline.errors import VideoError
from affect.pipeline.ingest.synthetic.video import SyntheticVideo, draw_video
from affect.pipeline.ingest.video.timeline import read_timeline
from affect.pipeline.progress import Reporter
from affect.pipeline.records import StageReport
from affect.pipeline.visualization.clip_page import player_pages
from affect.pipeline.visualization.web_video import make_web_video

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

Drawn = tuple[Path, dict[str, np.ndarray]]
NAME = "<b>& script"
RIGHT, END, HOME, LEFT, TAB = "\ue014", "\ue010", "\ue011", "\ue012", "\ue004"


def write_prediction(folder: Path, name: str, video: Path) -> dict[str, np.ndarray]:
    """What `predict` leaves of a video; from a third to a half of it there is no face."""
    timeline = read_timeline(video)
    time, n = timeline.time, len(timeline.time)
    value = np.stack([np.linspace(-0.8, 0.8, n), 0.6 * np.sin(np.arange(n) / 9)], 1)
    face = np.where((np.arange(n) > n // 3) & (np.arange(n) < n // 2), 0.1, 0.95).astype(np.float32)
    box = np.linspace((10, 20, 110, 140), (60, 40, 180, 170), n).astype(np.float32)
    with (folder / f"{name}.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("frame", "time", "face", "valence", "arousal", "x0", "y0", "x1", "y1"))
        for row in range(n):
            table.writerow((timeline.number[row], f"{time[row]:.6f}", face[row], *value[row], *box[row]))
    facts = {"fingerprint": "f", "source": str(video), "facts": {"frames": n, "lost": 0, "face_share": 0.8}}
    (folder / f"{name}.facts.json").write_text(json.dumps(facts))
    return {"time": time, "value": value, "face": face, "box": box}


def make(folder: Path, *names: str) -> StageReport:
    return player_pages(Config(), names, folder, Reporter(quiet=True))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of two seconds, whose frames come at uneven times."""
    path = tmp_path_factory.mktemp("video") / "talk.mp4"
    draw_video(SyntheticVideo(path, 5, 48, 24.0, 1, 320, 180, variable=True))
    return path


@pytest.fixture(scope="module")
def drawn(video: Path, tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    folder = tmp_path_factory.mktemp("out")
    prediction = write_prediction(folder, NAME, video)
    assert make(folder, NAME).made
    return folder / f"{NAME}.html", prediction


def ask(browser: "WebDriver", script: str) -> Any:
    return browser.execute_script(f"return {script}")


def wait(browser: "WebDriver", script: str) -> Any:
    """Until it is so, at most 30 s."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 30, poll_frequency=0.05).until(lambda _: ask(browser, script))


def press(browser: "WebDriver", *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def at(browser: "WebDriver") -> float:
    return float(ask(browser, "document.querySelector('.player').dataset.time"))


@pytest.fixture
def page(browser: "WebDriver", drawn: Drawn) -> "WebDriver":
    """The page, open, with its video ready."""
    browser.get(drawn[0].as_uri())
    wait(browser, "document.querySelector('video')?.readyState >= 3")
    return browser


def test_it_plays_in_step_with_the_traces(page: "WebDriver", drawn: Drawn) -> None:
    time, value = drawn[1]["time"], drawn[1]["value"]
    page.find_element("css selector", ".play").click()
    wait(page, "document.querySelector('video').currentTime > 0.5")
    now, row, *readings = ask(
        page,
        "(() => {const video = document.querySelector('video'); video.pause(); return [video.currentTime, "
        "Number(document.querySelector('.player').dataset.row), ...[...document.querySelectorAll('.reading b')]"
        ".map(it => it.textContent)]})()",
    )
    assert abs(time[row] - time[0] - now) < 0.25
    assert [float(text.replace("−", "-")) for text in readings] == pytest.approx(value[row].tolist(), abs=0.006)
    left = float(ask(page, "parseFloat(document.querySelector('.cursor').style.left)"))
    assert left == pytest.approx(100 * (time[row] - time[0]) / (time[-1] - time[0]), abs=3)
    wait(page, "document.querySelector('.play').getAttribute('aria-label') === 'Play'")


def test_a_click_on_the_trace_seeks(page: "WebDriver", drawn: Drawn) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    time = drawn[1]["time"]
    panel = page.find_element("css selector", ".panel.arousal")
    for share in (0.25, 0.75):
        across = round(panel.size["width"] * (share - 0.5))
        ActionChains(page).move_to_element_with_offset(panel, across, 5).click().perform()
        expected = time[0] + share * (time[-1] - time[0])
        assert at(page) == pytest.approx(expected, abs=0.02)
        wait(page, "!document.querySelector('video').seeking")
        assert ask(page, "document.querySelector('video').currentTime") == pytest.approx(expected - time[0], abs=0.03)
    tooltip = ask(page, "document.querySelector('.tip').textContent")
    assert "valence" in tooltip
    assert "nearest word" in tooltip


def test_the_keyboard_is_enough(page: "WebDriver", drawn: Drawn) -> None:
    time = drawn[1]["time"]
    press(page, RIGHT)  # before anything has the focus
    assert at(page) == pytest.approx(time[0] + 1, abs=0.01)
    press(page, LEFT)
    assert at(page) == pytest.approx(time[0], abs=0.01)
    press(page, ".", ".", ".", ",")
    assert ask(page, "document.querySelector('.player').dataset.row") == "2"
    press(page, END)
    assert at(page) == pytest.approx(time[-1], abs=0.01)
    press(page, HOME, " ")
    wait(page, "!document.querySelector('video').paused")
    press(page, " ")
    wait(page, "document.querySelector('video').paused")
    seen = []
    for _ in range(12):
        press(page, TAB)
        seen.append(ask(page, "document.activeElement.className || document.activeElement.tagName"))
    assert {"play", "speed", "traces", "moment"} <= set(seen)


def test_the_box_is_on_the_face_and_hidden_without_a_face(page: "WebDriver", drawn: Drawn) -> None:
    press(page, ".", ".")
    edges = "['x', 'y', 'width', 'height']"
    shown = ask(page, f"{edges}.map(it => Number(document.querySelector('rect.box').getAttribute(it)))")
    x0, y0, x1, y1 = drawn[1]["box"][2]
    assert shown == pytest.approx([x0, y0, x1 - x0, y1 - y0], abs=1)
    wide, tall = ask(page, "(it => [it.videoWidth, it.videoHeight])(document.querySelector('video'))")
    over = ask(page, "(it => [it.width, it.height])(document.querySelector('.boxes').viewBox.baseVal)")
    assert wide / tall == pytest.approx(over[0] / over[1], rel=0.02)
    press(page, *["."] * int(0.4 * len(drawn[1]["time"])))
    assert ask(page, "document.querySelector('.facebox').style.display") == "none"
    assert ask(page, "document.querySelector('.face').textContent") == "no face"


def test_the_app_page_loads_nothing_from_the_network(page: "WebDriver") -> None:
    asked = ask(page, "performance.getEntriesByType('resource').map(it => it.name)")
    assert not [name for name in asked if not name.startswith(("data:", "blob:"))]
    assert ask(page, "document.querySelector('h1').textContent") == NAME


def test_light_dark_and_print(page: "WebDriver") -> None:
    def ground() -> int:
        return int(ask(page, "Number(getComputedStyle(document.body).backgroundColor.match(/[0-9]+/)[0])"))

    assert ground() > 200
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    assert ground() < 60
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", **dark})
    assert ground() > 200
    assert ask(page, "getComputedStyle(document.querySelector('.play')).display") == "none"
    assert base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", {})["data"]).startswith(b"%PDF")


@pytest.mark.parametrize("width", [390, 768])
def test_nothing_is_wider_than_a_small_screen(page: "WebDriver", width: int) -> None:
    metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.refresh()
    wait(page, "document.querySelector('.panel')")
    assert ask(page, "document.documentElement.scrollWidth") <= width


def test_without_its_video_the_traces_still_play(browser: "WebDriver", video: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(video, tmp_path / "gone.mp4"))
    write_prediction(tmp_path, "gone", copy)
    copy.unlink()
    assert make(tmp_path, "gone").made
    browser.get((tmp_path / "gone.html").as_uri())
    assert "cannot be shown" in ask(browser, "document.querySelector('.note').textContent")
    browser.find_element("css selector", ".play").click()
    wait(browser, "Number(document.querySelector('.player').dataset.row) > 3")


def test_pages_are_kept_until_something_changes(video: Path, tmp_path: Path) -> None:
    write_prediction(tmp_path, "talk", video)
    assert make(tmp_path, "talk").made == ("talk",)
    assert make(tmp_path, "talk").kept == ("talk",)
    facts = tmp_path / "talk.facts.json"
    facts.write_text(facts.read_text().replace('"f"', '"g"'))
    assert make(tmp_path, "talk").made == ("talk",)
    facts.unlink()
    assert [(it.kind, it.name) for it in make(tmp_path, "talk").failed] == [("missing", "talk")]
    assert not (tmp_path / "talk.html").exists()


def test_a_web_video_has_at_most_the_given_size(video: Path, tmp_path: Path) -> None:
    def frames(data: bytes) -> int:
        (tmp_path / "film.mp4").write_bytes(data)
        return read_timeline(tmp_path / "film.mp4").facts.frames

    whole, timeline = make_web_video(video, 4_000_000, [3]), read_timeline(video)
    assert (whole.whole, list(whole.pictures)) == (True, [3])
    assert (whole.width, whole.height) == (timeline.facts.width, timeline.facts.height)
    assert frames(whole.data) == len(timeline.time)
    for most in (100_000, 30_000):
        small = make_web_video(video, most)
        assert len(small.data) <= most
        assert frames(small.data) > 0
        assert small.whole == (small.end > timeline.time[-1] - 0.3)
    (tmp_path / "x.mp4").write_bytes(b"no video" * 50)
    with pytest.raises(VideoError):
        make_web_video(tmp_path / "x.mp4", 1_000_000)


def test_a_video_that_the_browser_does_not_know_plays(browser: "WebDriver", real: Path, tmp_path: Path) -> None:
    prediction = write_prediction(tmp_path, "real", real / "titles-then-face.mov")  # HEVC, with a sound track
    make(tmp_path, "real")
    browser.get((tmp_path / "real.html").as_uri())
    wait(browser, "document.querySelector('video').readyState >= 3")
    assert ask(browser, "document.querySelector('video').duration") == pytest.approx(prediction["time"][-1], abs=0.25)
    assert (tmp_path / "real.html").stat().st_size < 8.5e6
