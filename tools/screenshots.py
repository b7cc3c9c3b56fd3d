"""Screenshots of a report: python tools/screenshots.py PAGE.html FOLDER. Needs chromium and chromedriver.

Writes report.png (desktop, light), report-dark.png, report-phone.png and report.pdf (as printed).
"""

import base64
import shutil
import sys
import tempfile
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

SHOTS = {"report": (1280, 1180, "light"), "report-dark": (1280, 1180, "dark"), "report-phone": (390, 844, "light")}


def main(page: Path, folder: Path) -> None:
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not binary or not driver:
        sys.exit("chromium and chromedriver are needed (Debian: apt-get install chromium chromium-driver)")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = binary
        for flag in (
            "--headless=new", "--no-sandbox", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--no-first-run", "--mute-audio", "--hide-scrollbars", f"--user-data-dir={profile}",
        ):  # fmt: skip
            options.add_argument(flag)
        browser = webdriver.Chrome(options=options, service=Service(driver))
        try:
            for name, (width, height, scheme) in SHOTS.items():
                shoot(browser, page, folder / f"{name}.png", width, height, scheme)
            (folder / "report.pdf").write_bytes(
                base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {})["data"])
            )
        finally:
            browser.quit()


def shoot(browser: webdriver.Chrome, page: Path, target: Path, width: int, height: int, scheme: str) -> None:
    """Takes a screenshot from the player down, at a third of the video."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1.5, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get(page.resolve().as_uri())
    wait = WebDriverWait(browser, 60, poll_frequency=0.1)
    wait.until(lambda it: it.execute_script("return document.querySelector('video')?.readyState >= 3"))
    browser.execute_script(
        "const traces = document.querySelector('.traces');"
        "const box = document.querySelector('.panel').getBoundingClientRect();"
        "document.documentElement.style.scrollBehavior = 'auto';"
        "const event = {clientX: box.left + box.width * 0.36, clientY: box.top + 5, bubbles: true, pointerId: 1};"
        "traces.setPointerCapture = () => {}; traces.dispatchEvent(new PointerEvent('pointerdown', event));"
        "traces.dispatchEvent(new PointerEvent('pointerleave', event));"
        "(document.querySelector('#watch') ?? document.body).scrollIntoView();"
    )
    wait.until(lambda it: it.execute_script("return !document.querySelector('video').seeking"))
    target.write_bytes(base64.b64decode(browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
