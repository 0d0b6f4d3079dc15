"""`headstart serve` in a process of its own: over HTTP, in a real browser, and ended."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from chromium import Page, found, opened
from conftest import HEADSTART, ROOT, Project, failed, write_image
from documentation import blocks, first_cells
from test_images import bomb

SECONDS = 60


class Serving:
    """A process that serves a project."""

    def __init__(self, project: Project, *options: str) -> None:
        self._log = project.folder / "serve.log"
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        with open(self._log, "w") as log:
            command = [*HEADSTART, "serve", "--port", "0", *options]
            # A group of its own, so that a test can look for what it leaves.
            self.process = subprocess.Popen(
                command, cwd=project.folder, env=env, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + SECONDS
        while "Ctrl-C ends" not in self.said and self.process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        assert "Ctrl-C ends" in self.said, self.said
        self.address = self.said.rpartition(" are at ")[2].partition(" ")[0]

    @property
    def said(self) -> str:
        return self._log.read_text()

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        return self._sent(urllib.request.Request(self.address + path, headers=headers))

    def post(self, data: bytes, query: str = "", **headers: str) -> tuple[int, dict]:
        request = urllib.request.Request(
            f"{self.address}predict?{query}", data, {"Content-Type": "image/jpeg", **headers}
        )
        code, text = self._sent(request)
        return code, json.loads(text)

    def _sent(self, request: urllib.request.Request) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def ended(self) -> int:
        """The exit status, and nothing that is left of the process."""
        code = self.process.wait(SECONDS)
        with pytest.raises(ProcessLookupError):
            os.killpg(self.process.pid, 0)
        return code


@pytest.fixture(scope="module")
def own(built: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy that the tests of this file share."""
    project = Project(tmp_path_factory.mktemp("serve") / "project")
    shutil.copytree(built.folder, project.folder)
    return project


@pytest.fixture(scope="module")
def serving(own: Project) -> Iterator[Serving]:
    serving = Serving(
        own, "--max-megabytes", "0.1", "--max-megapixels", "1", "--max-requests", "24", "--max-seconds", "20"
    )
    yield serving
    serving.process.kill()
    serving.process.wait()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return write_image(tmp_path / "new.jpg", 77, (300, 200))


def test_it_answers_in_json(serving: Serving, own: Project, photo: Path) -> None:
    code, told = serving.get("heads")
    assert code == 200 and {head["name"]: head["problem"] for head in json.loads(told)["heads"]} == {
        "logreg": None,
        "ridge": None,
    }
    code, one = serving.post(photo.read_bytes(), "head=logreg")
    assert code == 200 and one["head"] == "logreg" and one["label"] in ("cat", "dog") and one["warnings"] == []
    predicted = own.headstart("predict", str(photo), "--head", "logreg").out
    assert f"new.jpg: {one['label']} ({one['label']} {one['probabilities'][one['label']]:.3f}" in predicted
    code, other = serving.post(photo.read_bytes(), "head=ridge&min_accuracy=0.6&details=1")
    assert code == 200 and other["probabilities"] != one["probabilities"]
    assert other["sure"] == (max(other["probabilities"].values()) >= other["threshold"] > 0)
    assert len(other["nearest"]) == 6 and other["map"]["image"]
    done = subprocess.run(
        ["curl", "-s", "-F", f"image=@{photo}", f"{serving.address}predict?head=logreg"],
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout) == one


def test_what_is_wrong_is_one_line_and_a_status(serving: Serving, photo: Path, tmp_path: Path) -> None:
    whole = photo.read_bytes()
    for data, query, status, line in (
        (b"no image", "", 422, "not an image that can be read"),
        (whole[: len(whole) // 2], "", 422, "damaged: "),
        (b"", "", 422, "the file is empty"),
        (bomb(40_000), "", 413, "expected at most 0.1 MB, found 0.2 MB"),
        (bomb(), "", 422, "more pixels than the limit of 1,000,000"),
        (bytes(300_000), "", 413, "expected at most 0.1 MB, found 0.3 MB"),
        (bytes(9_000_000), "", 413, "expected at most 0.1 MB, found 9.0 MB"),
        (whole, "head=nope", 404, "no head 'nope'"),
        (whole, "class=eel", 400, "found 'eel'"),
        (whole, "min_accuracy=2", 400, "expected a number from 0 to 1"),
        (whole, "min_accuracy=0.9999", 422, "validation images can show"),
        (whole, "details=yes", 400, "expected 0 or 1"),
    ):
        try:
            code, told = serving.post(data, query)
        except (BrokenPipeError, ConnectionResetError, urllib.error.URLError):
            assert len(data) > 1_000_000, "only what is far too large is not read to its end"
            continue
        assert (code, list(told)) == (status, ["error"]) and line in told["error"] and "\n" not in told["error"]
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert serving.post(b"--x--", "", **form)[0] == 400
    assert serving.post(b"nonsense", "", **form)[0] == 400
    assert serving.get("nope")[0] == 404 and serving.get("predict")[0] == 405
    assert serving.get("", Host="example.com")[0] == 403  # a site whose name was turned to this address
    assert serving.post(whole)[0] == 200
    assert "unexpected" not in serving.said


def test_many_at_once_and_too_many(serving: Serving, photo: Path) -> None:
    data = photo.read_bytes()
    with ThreadPoolExecutor(16) as clients:
        codes = [
            code
            for code, _ in clients.map(lambda i: serving.post(data, f"head={('logreg', 'ridge')[i % 2]}"), range(64))
        ]
    assert codes == [200] * 64
    # Uploads that do not end are under way, and no more are taken than that.
    host, port = serving.address.removeprefix("http://").rstrip("/").split(":")
    slow = []
    for _ in range(24):
        slow.append(socket.create_connection((host, int(port))))
        slow[-1].sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nx")
    time.sleep(0.5)
    code, told = serving.post(data)
    assert code == 503 and "24 requests are under way" in told["error"]
    assert serving.get("")[0] == 200
    for each in slow:
        each.close()
    end = time.monotonic() + 5
    while serving.post(data)[0] != 200:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_what_takes_too_long_is_told(own: Project, photo: Path) -> None:
    serving = Serving(own, "--max-seconds", "1")
    host, port = serving.address.removeprefix("http://").rstrip("/").split(":")
    try:
        with socket.create_connection((host, int(port))) as slow:
            slow.sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nx")
            slow.settimeout(10)
            assert b"504" in slow.recv(100)
        assert serving.post(photo.read_bytes())[0] == 200
        serving.process.send_signal(signal.SIGTERM)
        assert serving.ended() == -signal.SIGTERM
    finally:
        serving.process.kill()
        serving.process.wait()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_it_ends_and_leaves_nothing(project: Project, photo: Path, end: signal.Signals) -> None:
    temporary = project.folder / "temporary"
    temporary.mkdir()
    before = set(project.folder.rglob("*"))
    os.environ["TMPDIR"] = str(temporary)
    try:
        serving = Serving(project, "--head", "ridge")
    finally:
        del os.environ["TMPDIR"]
    with ThreadPoolExecutor(8) as clients:
        asked = [clients.submit(serving.post, photo.read_bytes(), "details=1") for _ in range(8)]
        asked[0].result()
        # It holds no lock: another command trains beside it.
        (project.artifacts / "heads" / "logreg" / "result.json").unlink()
        assert serving.post(photo.read_bytes(), "head=logreg")[0] == 404
        assert project.headstart("heads").trained == ["logreg"]
        assert serving.post(photo.read_bytes(), "head=logreg")[0] == 200
        start = time.monotonic()
        serving.process.send_signal(end)
        code = serving.ended()
    assert code == (130 if end == signal.SIGINT else -signal.SIGKILL) and time.monotonic() - start < 10
    new = {path.relative_to(project.folder).as_posix() for path in set(project.folder.rglob("*")) - before}
    assert {name for name in new if not name.startswith("artifacts/heads/")} == {"serve.log"}
    assert not list(temporary.iterdir())
    assert project.headstart("verify").code == 0


def test_a_port_that_is_taken_and_a_head_that_is_not_there_are_one_line(project: Project, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}: cannot be served at" in failed(
            project.headstart("serve", "--port", str(port), cold=True)
        )
    assert "no head 'nope'" in failed(project.headstart("serve", "--port", "0", "--head", "nope", cold=True))
    assert "validation images can show" in failed(
        project.headstart("serve", "--port", "0", "--min-accuracy", "0.9999", cold=True)
    )
    open_to_all = Serving(project, "--host", "0.0.0.0")
    open_to_all.process.kill()
    assert "everybody who can reach this machine" in open_to_all.said


def test_the_commands_and_the_python_of_the_page_in_the_documentation(own: Project, photo: Path) -> None:
    write_image(own.folder / "new.jpg", 5)
    lines = [line for block in blocks("sh", "docs/serve.md") for line in block.splitlines()]
    started = [line.split()[2:] for line in lines if line.startswith(".venv/bin/headstart serve")]
    asked = [line for line in lines if line.startswith("curl ")]
    assert len(started) == 3 and len(asked) == 3 and len(lines) == 6
    serving = Serving(own, *started[-1])
    try:
        for command in asked:
            here = command.replace("http://127.0.0.1:8770/", serving.address).replace("curl ", "curl -s ")
            done = subprocess.run(shlex.split(here), cwd=own.folder, capture_output=True, check=True)
            told = json.loads(done.stdout)
            assert told.get("head", "logreg") == "logreg" and "error" not in told
        (code,) = blocks("python", "docs/serve.md")
        here = code.replace("http://127.0.0.1:8770/", serving.address)
        done = subprocess.run([sys.executable, "-c", here], cwd=own.folder, capture_output=True, text=True, check=True)
        assert "cat" in done.stdout and "dog" in done.stdout
        told = serving.post(photo.read_bytes())[1]
        shown = {
            name
            for row in first_cells("docs/serve.md", "From another program")
            for name in row.replace("`", "").split(", ")
        }
        assert shown == set(told)
    finally:
        serving.process.kill()
        serving.process.wait()
    options = {f"--{each}" for each in ("max-megabytes", "max-megapixels", "max-requests", "max-seconds")}
    assert set(first_cells("docs/serve.md", "Limits")) == options


# A browser, too, where there is one.


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    if not found():
        print(
            "NOT TESTED: the page of headstart serve, as chromium and chromedriver are not installed",
            file=sys.__stderr__,
        )
        pytest.skip(
            "chromium and chromedriver are not installed: the page is not tested (apt install chromium chromium-driver)"
        )
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as page:
        yield page


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("size", [(1280, 900), (390, 844)], ids=["wide", "narrow"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page(
    serving: Serving, browser: Page, photo: Path, tmp_path: Path, size: tuple[int, int], dark: bool
) -> None:
    browser.hosts()
    browser.complaints()
    browser.look(serving.address, size, dark)
    browser.choose_quietly("head", "logreg")
    browser.upload(photo)
    first = serving.post(photo.read_bytes(), "head=logreg")[1]
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


def test_a_photo_that_is_dropped_pasted_or_taken(serving: Serving, browser: Page, photo: Path) -> None:
    browser.look(serving.address, (1280, 900))
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
    browser["take"].click()
    browser.until(lambda: browser.driver.execute_script("return document.getElementById('video').videoWidth") > 0)
    browser["shoot"].click()
    browser.until(lambda: browser["result"].is_displayed())
    assert not browser["camera"].is_displayed()


def test_an_answer_below_the_threshold(own: Project, browser: Page, photo: Path) -> None:
    serving = Serving(own, "--head", "logreg", "--min-accuracy", "0.6")
    try:
        threshold = serving.post(photo.read_bytes(), "head=logreg")[1]["threshold"]
        browser.look(serving.address, (1280, 900))
        seen = set()
        for seed in range(60):
            path = write_image(photo.parent / f"{seed}.png", seed, (30, 30))
            told = serving.post(path.read_bytes())[1]
            if told["sure"] in seen:
                continue
            seen.add(told["sure"])
            browser.upload(path)
            assert browser["label"].text == (told["label"] if told["sure"] else "None of these")
            assert f"{100 * threshold:.1f}%" in browser["doubt"].text
            if len(seen) == 2:
                break
        assert seen == {True, False}
        serving.process.send_signal(signal.SIGINT)
        assert serving.ended() == 130
        browser.upload(photo)
        assert "headstart does not answer" in browser["notice"].text
    finally:
        serving.process.kill()
        serving.process.wait()
