"""`headstart serve` over HTTP: what it answers, what it refuses, and how it ends."""

import errno
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import Project, write_image
from documentation import blocks, first_cells
from serving import LIMITS, SECONDS, Serving, copied, sent, serving, until
from test_images import bomb

from cache.errors import CacheError, HeadError
from stages.serve.app import App
from stages.serve.limits import Limits, RefusedError
from stages.serve.page import rendered
from stages.serve.worker import Worker

# A name that is not UTF-8, as files have that come from old disks.
NAME = "caf\udce9.png"


@pytest.fixture(scope="module")
def served(built: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    project = copied(built, tmp_path_factory.mktemp("serve") / "project")
    os.rename(project.photos / "cat" / "cat3.png", project.photos / "cat" / NAME)
    with serving(project, *LIMITS) as process:
        yield process


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return write_image(tmp_path / "new.jpg", 77, (300, 200))


def test_it_answers_in_json(served: Serving, photo: Path) -> None:
    code, told = served.get("heads")
    assert code == 200 and {head["name"]: head["problem"] for head in json.loads(told)["heads"]} == {
        "logreg": None,
        "ridge": None,
    }
    code, one = served.post(photo.read_bytes(), "head=logreg")
    assert code == 200 and one["head"] == "logreg" and one["label"] in ("cat", "dog") and one["warnings"] == []
    predicted = served.project.headstart("predict", str(photo), "--head", "logreg").out
    assert f"new.jpg: {one['label']} ({one['label']} {one['probabilities'][one['label']]:.3f}" in predicted
    code, other = served.post(photo.read_bytes(), "head=ridge&min_accuracy=0.6&details=1")
    assert code == 200 and other["probabilities"] != one["probabilities"]
    assert other["sure"] == (max(other["probabilities"].values()) >= other["threshold"] > 0)
    assert len(other["nearest"]) == 6 and other["map"]["image"]
    code, same = served.post((served.project.photos / "cat" / NAME).read_bytes(), "details=1")
    assert code == 200 and same["same_file"]["path"] == f"cat/{NAME}"
    assert rendered(NAME, Limits(), None, "nonce").encode()
    done = subprocess.run(
        ["curl", "-s", "-F", f"image=@{photo}", f"{served.address}predict?head=logreg"],
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout) == one


def test_what_is_wrong_is_one_line_and_a_status(served: Serving, photo: Path, tmp_path: Path) -> None:
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
            code, told = served.post(data, query)
        except (BrokenPipeError, ConnectionResetError, urllib.error.URLError):
            assert len(data) > 1_000_000, "only what is far too large is not read to its end"
            continue
        assert (code, list(told)) == (status, ["error"]) and line in told["error"] and "\n" not in told["error"]
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert served.post(b"--x--", "", **form)[0] == 400
    assert served.post(b"nonsense", "", **form)[0] == 400
    assert served.get("nope")[0] == 404 and served.get("predict")[0] == 405
    assert served.get("", Host="example.com")[0] == 403  # a site whose name was turned to this address
    other = {"Sec-Fetch-Site": "cross-site"}
    assert served.get("heads", **other)[0] == 403 and served.post(whole, "", Origin="http://example.com")[0] == 403
    assert served.get("", **other)[0] == 200, "others may link to the page"
    assert served.post(whole)[0] == 200
    assert "unexpected" not in served.said


def test_as_it_comes_a_small_file_of_many_pixels_is_refused(project: Project) -> None:
    """By its pixels, as it has few bytes: with the limits that nobody set."""
    with serving(project) as process:
        code, told = process.post(bomb(40_000))
        assert code == 422 and "more pixels than the limit of 50,000,000" in told["error"]
        used = int(Path(f"/proc/{process.process.pid}/status").read_text().partition("VmHWM:")[2].split()[0])
    assert used < 3_000_000, "kilobytes; its pixels alone are 4.8 GB"


def test_many_at_once_and_too_many(served: Serving, photo: Path) -> None:
    data = photo.read_bytes()
    with ThreadPoolExecutor(16) as clients:
        codes = [
            code
            for code, _ in clients.map(lambda i: served.post(data, f"head={('logreg', 'ridge')[i % 2]}"), range(64))
        ]
    assert codes == [200] * 64
    # Uploads that do not end are under way, and no more are taken than that.
    host, port = served.address.removeprefix("http://").rstrip("/").split(":")
    slow = []
    for _ in range(24):
        slow.append(socket.create_connection((host, int(port)), SECONDS))
        slow[-1].sendall(
            b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n"
        )
        assert b" 100 " in slow[-1].recv(100)  # the upload is asked for: the request is counted by now
    code, told = served.post(data)
    assert code == 503 and "24 requests are under way" in told["error"]
    assert served.get("")[0] == 200
    for each in slow:
        each.close()
    until(lambda: served.post(data)[0] == 200)


class Heads:
    """Heads of which none can be loaded."""

    def __init__(self, error: Exception) -> None:
        self.error, self.asked = error, 0

    def ready(self, name: str | None) -> None:
        return None

    def load(self, name: str | None) -> None:
        self.asked += 1
        raise self.error

    def told(self) -> dict:
        return {}


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    assert worker.end(20)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (HeadError("no head 'nope'"), 404),
        (RefusedError(503, "is being written"), 503),
        (CacheError("damaged"), 500),
        (TimeoutError(errno.ETIMEDOUT, "the disk does not answer"), 500),
    ],
)
def test_why_a_head_cannot_answer_is_its_status(worker: Worker, error: Exception, status: int) -> None:
    code, told = sent(App(Heads(error), worker, Limits(), "photos"), "/predict", body=b"x")
    assert code == status and list(json.loads(told)) == ["error"]


def test_only_the_file_in_a_form_is_limited(worker: Worker) -> None:
    app = App(Heads(HeadError("read")), worker, Limits(bytes=1000), "photos")
    for size, status, line in ((1000, 404, "read"), (1001, 413, "expected at most 0.001 MB, found 0.1 MB")):
        note = b'--x\r\nContent-Disposition: form-data; name="note"\r\n\r\n' + b"n" * 5000
        file = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + b"i" * size
        body = b"\r\n".join((note, file, b"--x--\r\n"))
        code, told = sent(app, "/predict", body=body, kind="multipart/form-data; boundary=x")
        assert (code, json.loads(told)["error"]) == (status, line)


def test_nobody_waits_for_ever_and_who_is_gone_is_left_out(worker: Worker) -> None:
    heads, go = Heads(HeadError("asked")), threading.Event()
    worker.call(go.wait)
    try:
        app = App(heads, worker, Limits(seconds=0.2), "photos")
        assert sent(app, "/heads", "GET")[0] == 504
        app = App(heads, worker, Limits(), "photos")
        assert sent(app, "/predict", body=b"x", is_gone=True) == (400, "")
    finally:
        go.set()
    worker.call(int).result(20)
    assert not heads.asked


def test_what_takes_too_long_is_told(served: Serving, photo: Path) -> None:
    with serving(served.project, "--max-seconds", "1") as served:
        host, port = served.address.removeprefix("http://").rstrip("/").split(":")
        with socket.create_connection((host, int(port))) as slow:
            slow.sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nx")
            slow.settimeout(SECONDS)
            assert b"504" in slow.recv(100)
        # Nor may silence keep others out: before a first request, and in the head of another.
        silent, begun = (socket.create_connection((host, int(port)), SECONDS) for _ in range(2))
        with silent, begun:
            begun.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            answer = b""
            while b"</html>" not in answer:
                more = begun.recv(2**16)
                assert more, answer
                answer += more
            with suppress(ConnectionError):  # where it was closed before this was sent
                begun.sendall(b"GET")
                while begun.recv(2**16):
                    pass
            assert silent.recv(1) == b""
        # While it compiles for the batches to come, which it does when nobody asks, an answer may take longer than it has.
        until(lambda: served.post(photo.read_bytes())[0] == 200)
        served.process.send_signal(signal.SIGTERM)
        assert served.ended() == -signal.SIGTERM


def test_who_asks_and_never_reads_keeps_no_connection(served: Serving) -> None:
    """Closing waited until the rest was taken, which was never."""
    with serving(served.project, "--max-seconds", "1") as served:
        host, port = served.address.removeprefix("http://").rstrip("/").split(":")
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**12)
            deaf.connect((host, int(port)))
            deaf.settimeout(SECONDS)
            # How many answers the system keeps for who does not read differs between machines: ask until it keeps no more.
            with pytest.raises(ConnectionError):
                for _ in range(10_000):  # 360 MB, where it reads on without end
                    deaf.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 1000)
        assert served.get("")[0] == 200


def test_the_commands_and_the_python_of_the_page_in_the_documentation(served: Serving, photo: Path) -> None:
    write_image(served.project.folder / "new.jpg", 5)
    lines = [line for block in blocks("sh", "docs/serve.md") for line in block.splitlines()]
    started = [line.split()[2:] for line in lines if line.startswith(".venv/bin/headstart serve")]
    asked = [line for line in lines if line.startswith("curl ")]
    assert len(started) == 3 and len(asked) == 3 and len(lines) == 6
    with serving(served.project, *started[-1]) as served:
        for command in asked:
            here = command.replace("http://127.0.0.1:8770/", served.address).replace("curl ", "curl -s ")
            done = subprocess.run(shlex.split(here), cwd=served.project.folder, capture_output=True, check=True)
            told = json.loads(done.stdout)
            assert told.get("head", "logreg") == "logreg" and "error" not in told
        (code,) = blocks("python", "docs/serve.md")
        here = code.replace("http://127.0.0.1:8770/", served.address)
        done = subprocess.run(
            [sys.executable, "-c", here], cwd=served.project.folder, capture_output=True, text=True, check=True
        )
        assert "cat" in done.stdout and "dog" in done.stdout
        told = served.post(photo.read_bytes())[1]
        shown = {
            name
            for row in first_cells("docs/serve.md", "From another program")
            for name in row.replace("`", "").split(", ")
        }
        assert shown == set(told)
    options = {f"--{each}" for each in ("max-megabytes", "max-megapixels", "max-requests", "max-seconds")}
    assert set(first_cells("docs/serve.md", "Limits")) == options
