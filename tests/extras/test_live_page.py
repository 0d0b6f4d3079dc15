"""The page of `headstart watch` in Chromium, where that is installed: it reloads itself, although a policy keeps scripts out of it."""

import tempfile
from contextlib import suppress
from pathlib import Path

from chromium import opened, or_skip
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By

from stages.report.live import LivePage

POLICY = '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:">'


def test_it_shows_the_report_that_was_written_last(tmp_path: Path) -> None:
    or_skip("the page of headstart watch")
    file, new = tmp_path / "index.html", tmp_path / "new.html"

    def write(word: str) -> None:
        new.write_text(f"<html><head>{POLICY}</head><body>{word}</body></html>")
        new.replace(file)

    write("one")
    with tempfile.TemporaryDirectory() as folder, LivePage(0, lambda: file) as page, opened(Path(folder)) as browser:

        def shows(word: str) -> bool:
            with suppress(WebDriverException):  # of a page that is being replaced
                return browser.driver.find_element(By.TAG_NAME, "body").text == word
            return False

        browser.driver.get(page.address)
        for word in ("one", "two", "three"):
            write(word)
            browser.until(lambda word=word: shows(word))
        assert browser.hosts() == {"127.0.0.1"}
        assert not any("Content Security Policy" in said for said in browser.complaints())
