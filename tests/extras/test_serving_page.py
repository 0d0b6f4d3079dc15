"""The page of `headstart serve` in Chromium, where that is installed."""

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Page, opened, or_skip
from conftest import Project, write_image
from serving import LIMITS, Serving, copied, serving
from test_images import bomb


@pytest.fixture(scope="module")
def served(built: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(copied(built, tmp_path_factory.mktemp("serve") / "project"), *LIMITS) as process:
        yield process


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return write_image(tmp_path / "new.jpg", 77, (300, 200))


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    or_skip("the page of headstart serve")
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as page:
        yield page


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("size", [(1280, 900), (390, 844)], ids=["wide", "narrow"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page(
    served: Serving, browser: Page, photo: Path, tmp_path: Path, size: tuple[int, int], dark: bool
) -> None:
    browser.hosts()
    browser.complaints()
    browser.look(served.address, size, dark)
    browser.choose_quietly("head", "logreg")
    browser.upload(photo)
    first = served.post(photo.read_bytes(), "head=logreg")[1]
    assert browser["result"].is_displayed() and browser["label"].text == first["label"]
    assert f"{100 * first['probabilities'][first['label']]:.1f}%" in browser["classes"].text
    assert len(browser.driver.find_elements("css selector", "#nearest img")) == 6
    assert browser.driver.execute_script("return document.getElementById('map').naturalWidth") > 0
    browser.choose("head", "ridge")
    assert browser["asked"].text == "Head ridge says"
    browser.driver.find_elements("css selector", "#classes button")[1].click()
    other = next(name for name in first["probabilities"] if name != browser["label"].text)
    browser.until(
        lambda: f"speaks for {other}" in browser["map-says"].text or "nothing speaks" in browser["map-says"].text
    )
    bright = sum(
        int(each)
        for each in browser.driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        .strip("rgb()")
        .split(",")
    )
    assert (bright < 200) == dark and browser.overflows() <= 0
    browser.upload(written(tmp_path / "text.jpg", b"no image"))
    assert "text.jpg: not an image that can be read" in browser["notice"].text and not browser["result"].is_displayed()
    browser.upload(written(tmp_path / "bomb.png", bomb()))
    assert "more pixels than the limit" in browser["notice"].text
    browser.upload(written(tmp_path / "large.png", bomb(40_000)))
    assert "Expected a file of at most 0.1 MB" in browser["notice"].text
    browser.upload(photo)
    assert browser["result"].is_displayed() and not browser["notice"].is_displayed()
    assert browser.hosts() == {"127.0.0.1"}, "nothing is requested from elsewhere"
    assert all("422" in said for said in browser.complaints())


def test_a_photo_that_is_dropped_pasted_or_taken(served: Serving, browser: Page, photo: Path) -> None:
    browser.look(served.address, (1280, 900))
    data = list(photo.read_bytes())
    transfer = "const t = new DataTransfer(); t.items.add(new File([new Uint8Array(arguments[0])], 'p.jpg', {type: 'image/jpeg'}));"
    for event in (
        "new DragEvent('drop', {dataTransfer: t, bubbles: true, cancelable: true})",
        "new ClipboardEvent('paste', {clipboardData: t, bubbles: true})",
    ):
        browser.driver.execute_script("document.getElementById('result').hidden = true")
        browser.driver.execute_script(f"{transfer} document.body.dispatchEvent({event})", data)
        browser.until(lambda: browser["result"].is_displayed())
    browser.driver.execute_script("document.getElementById('result').hidden = true")
    assert not browser["shoot"].is_enabled(), "before the camera shows anything"
    browser.driver.execute_script(
        "window.cameras = []; const media = navigator.mediaDevices, real = media.getUserMedia.bind(media);"
        "media.getUserMedia = async (what) => { const found = await real(what); cameras.push(found); return found; };"
    )
    browser["take"].click()
    browser.until(browser["shoot"].is_enabled)
    browser["take"].click()
    states = "return cameras.map((each) => each.getTracks()[0].readyState)"
    browser.until(lambda: browser.driver.execute_script(states) == ["ended", "live"])
    browser.until(browser["shoot"].is_enabled)
    browser["shoot"].click()
    browser.until(lambda: browser["result"].is_displayed())
    assert not browser["camera"].is_displayed()
    assert browser.driver.execute_script(states) == ["ended", "ended"]


def test_classes_whose_names_are_numbers_stand_in_their_order(served: Serving, browser: Page, photo: Path) -> None:
    browser.look(served.address, (1280, 900))
    told = served.post(photo.read_bytes(), "details=1")[1]
    told |= {"label": "10", "most_probable": "10", "probabilities": {"10": 0.6, "9": 0.1, "cat": 0.2, "1": 0.1}}
    browser.driver.execute_script("draw(arguments[0])", told)
    names = [each.text for each in browser.driver.find_elements("css selector", "#classes .name")]
    assert names == ["10", "cat", "1", "9"]


def test_what_was_chosen_stays(served: Serving, browser: Page, photo: Path) -> None:
    browser.look(served.address, (1280, 900))
    browser.choose_quietly("head", "logreg")
    # The heads are asked for when the window is looked at again, and the user is quicker than the answer.
    told = browser.driver.execute_async_script(
        "const done = arguments[0], list = $('head'), option = list.options[0];"
        "readHeads(list.value).then(() => done([list.value, option.isConnected])); list.value = 'ridge';"
    )
    assert told == ["ridge", True]
    browser.upload(photo)
    other = browser.driver.find_elements("css selector", "#classes button")[1]
    name = other.find_element("css selector", ".name").text
    other.click()
    browser.until(lambda: name in browser["map-says"].text or "nothing speaks" in browser["map-says"].text)
    focused = browser.driver.switch_to.active_element
    assert focused.get_attribute("data-name") == name and focused.get_attribute("aria-pressed") == "true"
    assert len(browser.driver.find_elements("css selector", "#classes [aria-pressed=true]")) == 1
    # What is asked later ends what was asked before.
    script = (
        "const seen = [], real = fetch; fetch = (path, how) => { seen.push(how.signal); return real(path, how); };"
        "ask(); ask(); fetch = real; return seen.map((each) => each.aborted);"
    )
    assert browser.driver.execute_script(script) == [True, False]
    browser.answered()


def test_an_answer_below_the_threshold(served: Serving, browser: Page, photo: Path) -> None:
    with serving(served.project, "--head", "logreg", "--min-accuracy", "0.6") as served:
        threshold = served.post(photo.read_bytes(), "head=logreg")[1]["threshold"]
        # Before the heads are known, the best is asked, and the accuracy of the command line holds.
        browser.driver.execute_cdp_cmd("Network.enable", {})
        browser.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/heads"]})
        browser.driver.get(served.address)
        browser.until(browser["notice"].is_displayed)
        browser.upload(photo)
        assert browser["result"].is_displayed() and f"{100 * threshold:.1f}%" in browser["doubt"].text
        browser.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
        browser.look(served.address, (1280, 900))
        seen = set()
        for seed in range(60):
            path = write_image(photo.parent / f"{seed}.png", seed, (30, 30))
            told = served.post(path.read_bytes())[1]
            if told["sure"] in seen:
                continue
            seen.add(told["sure"])
            browser.upload(path)
            assert browser["label"].text == (told["label"] if told["sure"] else "None of these")
            assert f"{100 * threshold:.1f}%" in browser["doubt"].text
            if len(seen) == 2:
                break
        assert seen == {True, False}
        served.process.send_signal(signal.SIGINT)
        assert served.ended() == 130
        browser.upload(photo)
        assert "headstart does not answer" in browser["notice"].text
