"""The report: one page that needs nothing else, shows what there is and names what is missing."""

import csv
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from affect.configs.schema import Config, dump
from affect.pipeline.errors import AffectError, MissingStageError
from affect.pipeline.ingest.synthetic.video import SyntheticVideo, draw_video
from affect.pipeline.ingest.video.timeline import read_timeline
from affect.pipeline.learning.metrics import pooled
from affect.pipeline.progress import Reporter
from affect.pipeline.records import StageReport, Work
from affect.pipeline.stages.report import chosen_subjects, report
from affect.pipeline.visualization.report.data import Series

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver


def write_run(work: Work, name: str, noise: float, *, evaluated: bool = True, epochs: int = 5) -> Path:
    """A run as `train` and `evaluate` leave it, on two subjects of 90 frames; the more noise the worse."""
    folder = work.run(name)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    truth = np.stack([np.sin(np.arange(180) / 20), np.cos(np.arange(180) / 15)], 1) * 0.6
    value = np.clip(truth + noise * rng.normal(size=truth.shape), -1, 1)
    valid = np.arange(180) % 10 != 0
    figures = pooled(value, truth, valid)
    lines = []
    for epoch in range(1, epochs + 1):
        line = {"epoch": epoch, "train_loss": 1 / epoch, "learning_rate": 1e-3}
        line |= {f"train_mse_{it}": 0.5 / epoch for it in ("valence", "arousal")}
        line |= {f"validation_{key}": it for key, it in figures.items()}
        lines.append(line)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.yaml").write_text(dump(Config()))
    (folder / "model.safetensors").write_bytes(b"")
    os.utime(folder / "model.safetensors", (1, 1))
    (folder / "run.json").write_text(
        json.dumps({"best_epoch": epochs, "metrics": lines[-1], "environment": {"cores": 4}})
    )
    if evaluated:
        parts = {"one": slice(0, 90), "<b>two": slice(90, 180)}
        per_subject = {name: pooled(value[it], truth[it], valid[it]) for name, it in parts.items()}
        record = {"run": name, "split": "validation", **figures, "per_subject": per_subject}
        (folder / "evaluation-validation.json").write_text(json.dumps(record))
        with (folder / "predictions-validation.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(("subject", "frame", "time", "valence", "arousal", "valence_true", "arousal_true", "valid"))
            for subject, rows in parts.items():
                for k, i in enumerate(range(rows.start, rows.stop)):
                    table.writerow((subject, k, k / 30, *value[i], *truth[i], int(valid[i])))
    return folder


def make(work: Work) -> StageReport:
    return report(Config(), work, Reporter(quiet=True))


def page_of(work: Work) -> str:
    return (work.report / "index.html").read_text(encoding="utf-8")


class Links(HTMLParser):
    """All that a page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.found += [it or "" for name, it in attrs if name in ("src", "srcset", "href", "action", "data")]


def test_a_work_folder_without_a_run_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(MissingStageError) as error:
        make(Work(tmp_path))
    assert "affect train" in error.value.remedy


def test_the_page_needs_no_other_file_and_no_network(tmp_path: Path) -> None:
    work = Work(tmp_path)
    write_run(work, "default", 0.1)
    make(work)
    links = Links()
    links.feed(page_of(work))
    assert any(link.startswith("data:image/png") for link in links.found)
    assert all(link.startswith(("data:", "#")) for link in links.found)
    assert "link" in links.tags  # the empty icon: without it browsers ask for /favicon.ico
    assert not re.search(r"@import|url\((?!data:)", page_of(work))


def test_what_is_shown_is_what_was_evaluated(tmp_path: Path) -> None:
    work = Work(tmp_path)
    folder = write_run(work, "default", 0.2)
    record = json.loads((folder / "evaluation-validation.json").read_text())
    made = make(work)
    assert made.facts["ccc_mean"] == record["ccc_mean"]
    page = page_of(work)
    for name in ("mean", "valence", "arousal"):
        assert f'<b class="{name}">{record[f"ccc_{name}"]:.2f}</b>' in page
    assert f"{record['mse_valence']:.3f}" in page


def test_names_are_text_and_not_html(tmp_path: Path) -> None:
    work = Work(tmp_path)
    write_run(work, "run", 0.2)
    make(work)
    page = page_of(work)
    assert "<b>two" not in page
    assert "&lt;b&gt;two" in page


def test_the_best_run_comes_first_and_all_are_in_the_table(tmp_path: Path) -> None:
    work = Work(tmp_path)
    write_run(work, "poor", 0.8)
    write_run(work, "rich", 0.05)
    write_run(work, "unfinished", 0.4, evaluated=False)
    made = make(work)
    assert made.facts["run"] == "rich"
    assert made.facts["runs"] == 3
    page = page_of(work)
    order = [page.index(f'<th scope="row">{name}</th>') for name in ("rich", "unfinished", "poor")]
    assert order == sorted(order)


def test_what_is_missing_is_named_with_its_command(tmp_path: Path) -> None:
    work = Work(tmp_path)
    write_run(work, "default", 0.2, evaluated=False)
    made = make(work)
    assert {"truth", "plane", "stn", "backbone"} <= set(made.facts["missing"])
    page = page_of(work)
    for command in ("affect evaluate --data D", "affect cache-features --data D", "affect pretrain backbone"):
        assert command in page


def test_the_report_notes_an_evaluation_older_than_its_model(tmp_path: Path) -> None:
    work = Work(tmp_path)
    folder = write_run(work, "default", 0.2)
    make(work)
    assert "trained again" not in page_of(work)
    os.utime(folder / "model.safetensors")
    os.utime(folder / "evaluation-validation.json", (2, 2))
    make(work)
    assert "trained again after its evaluation" in page_of(work)


def test_it_is_made_again_only_when_something_changed(tmp_path: Path) -> None:
    work = Work(tmp_path)
    write_run(work, "default", 0.2)
    assert make(work).made == ("index.html",)
    assert make(work).kept == ("index.html",)
    write_run(work, "second", 0.3)
    assert make(work).made == ("index.html",)
    (work.report / "curves.png").unlink()
    assert make(work).made == ("index.html",)


def test_pictures_show_something(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    work = Work(tmp_path)
    write_run(work, "default", 0.2)
    make(work)
    for name in ("curves", "truth", "plane"):
        light, dark = (cv2.imread(str(work.report / f"{name}{ending}.png")) for ending in ("", "-dark"))
        assert min(light.shape[:2]) > 200
        assert light.std() > 5
        assert light.mean() > 180 > 90 > dark.mean()


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "run.json", "evaluation-validation.json", "predictions-validation.csv"]
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    work = Work(tmp_path)
    folder = write_run(work, "default", 0.2)
    (folder / name).write_text("valid,\n[{broken")
    with pytest.raises(AffectError) as error:
        make(work)
    assert "default" in str(error.value)
    assert "again" in error.value.remedy


def test_best_median_and_worst_subjects_are_chosen() -> None:
    truth = np.stack([np.sin(np.arange(50) / 5)] * 2, 1)
    subjects = {
        name: Series(name, np.arange(50) / 30, truth * share + (1 - share) * 0.3, truth)
        for name, share in (("a", 0.1), ("b", 1.0), ("c", 0.6), ("d", 0.8), ("e", 0.3))
    }
    assert list(chosen_subjects(subjects)) == ["Best: subject b", "Median: subject c", "Worst: subject a"]
    assert list(chosen_subjects({"b": subjects["b"]})) == ["Best: subject b"]


def test_it_is_usable_in_a_browser(browser: "WebDriver", tmp_path: Path) -> None:
    """Tables sort by click and by key, curves are read off by keys, and a phone is wide enough."""
    from selenium.webdriver.common.keys import Keys

    work = Work(tmp_path)
    write_run(work, "default", 0.2)
    make(work)
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get((work.report / "index.html").as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def column(place: int) -> list[str]:
        rows = "[...document.querySelector('table.sortable').tBodies[0].rows]"
        return browser.execute_script(f"return {rows}.map(it => it.cells[arguments[0]].innerText)", place)

    heads = browser.find_elements("css selector", "table.sortable th button")
    browser.execute_script("arguments[0].click()", heads[0])
    assert column(0) == sorted(column(0))
    heads[0].send_keys(Keys.SPACE)
    assert column(0) == sorted(column(0), reverse=True)
    heads[3].send_keys(Keys.ENTER)
    values = [float(text) for text in column(3)]
    assert values == sorted(values, reverse=True)
    area = browser.find_element("css selector", ".area")
    area.send_keys(Keys.ARROW_LEFT)
    assert area.find_element("css selector", ".tip").text.startswith("epoch 4 · training 0.125")
    missing = browser.find_element("css selector", "#watch .missing").text
    assert "affect predict" in missing


def test_an_annotated_video_shows_what_was_annotated(tmp_path: Path) -> None:
    """A predicted video of a subject's name has the annotation beside it, frame by frame."""
    video = tmp_path / "talk.mp4"
    draw_video(SyntheticVideo(video, 5, 30, 24.0, 1, 160, 120))
    times = read_timeline(video).time
    work = Work(tmp_path)
    folder = write_run(work, "default", 0.2)
    (work.root / "predict").mkdir()
    names = ("frame", "time", "face", "valence", "arousal", "x0", "y0", "x1", "y1")
    rows = [(i, f"{t:.6f}", 0.9, 0.1, -0.2, 1, 2, 30, 40) for i, t in enumerate(times)]
    lines = [",".join(map(str, row)) for row in (names, *rows)]
    (work.root / "predict" / "talk.csv").write_text("\n".join(lines) + "\n")
    record = {"fingerprint": "f", "source": str(video), "facts": {}}
    (work.root / "predict" / "talk.facts.json").write_text(json.dumps(record))
    with (folder / "predictions-validation.csv").open("a", newline="") as file:
        for i, t in enumerate(times):
            csv.writer(file).writerow(("talk", i, f"{t:.6f}", 0.1, -0.2, 0.3, 0.4, int(i != 2)))
    make(work)
    clip = json.loads(re.findall(r'class="clip">(.*?)</script>', page_of(work))[0])
    assert len(clip["rows"]["time"]) == len(times)
    assert clip["truth"][0][:4] == [0.3, 0.3, None, 0.3]
    assert clip["video"]
    (work.root / "predict" / "talk.facts.json").unlink()
    assert make(work).made == ("index.html",)
    assert 'class="clip"' not in page_of(work)
