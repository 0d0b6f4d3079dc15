"""A real browser, headless, as a test drives it."""

import base64
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
SECONDS = 60


def found() -> tuple[str, str] | None:
    """Chromium and its driver, where both are installed."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


def or_skip(what: str) -> None:
    """Say aloud that ``what`` is not tested where there is no Chromium."""
    if not found():
        print(f"NOT TESTED: {what}, as chromium and chromedriver are not installed", file=sys.__stderr__)
        pytest.skip(
            f"chromium and chromedriver are not installed: {what} is not tested (apt install chromium chromium-driver)"
        )


class Page:
    """A page in a window of a size, in light or dark."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def look(self, address: str, size: tuple[int, int], dark: bool = False) -> None:
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": width < 500})
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        self.driver.get(address)
        self.until(lambda: self["head"].is_enabled())

    def __getitem__(self, name: str) -> WebElement:
        return self.driver.find_element(By.ID, name)

    def until(self, holds: object) -> None:
        WebDriverWait(self.driver, SECONDS, 0.05).until(lambda _: holds())  # type: ignore[operator]

    def upload(self, path: Path) -> None:
        """Choose a file, and wait for what is said of it."""
        self["file"].send_keys(str(path))
        self.answered()

    def answered(self) -> None:
        self.until(
            lambda: not self["busy"].is_displayed() and (self["result"].is_displayed() or self["notice"].is_displayed())
        )

    def choose_quietly(self, name: str, value: str) -> None:
        """Choose in a list."""
        script = "const e = document.getElementById(arguments[0]); e.value = arguments[1]; e.dispatchEvent(new Event('change'));"
        self.driver.execute_script(script, name, value)

    def choose(self, name: str, value: str) -> None:
        """Choose in a list, and wait for the answer about the photo."""
        self.choose_quietly(name, value)
        self.answered()

    def overflows(self) -> int:
        """By how many pixels the page is wider than the window."""
        return int(self.driver.execute_script("return document.documentElement.scrollWidth - innerWidth"))

    def picture(self, path: Path) -> None:
        """The whole page as a PNG file."""
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(shot["data"]))

    def hosts(self) -> set[str]:
        """Whom the page sent requests to, since the last time."""
        told = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [each["params"]["request"]["url"] for each in told if each["method"] == "Network.requestWillBeSent"]
        return {split.hostname or "" for split in map(urlsplit, urls) if split.scheme in ("http", "https", "ws", "wss")}

    def complaints(self) -> list[str]:
        """What the browser says in its console."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@contextmanager
def opened(folder: Path) -> Iterator[Page]:
    """Chromium, whose files go into a folder."""
    there = found()
    assert there
    options = webdriver.ChromeOptions()
    options.binary_location = there[0]
    for flag in (*FLAGS, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(there[1]))
    try:
        yield Page(driver)
    finally:
        driver.quit()
