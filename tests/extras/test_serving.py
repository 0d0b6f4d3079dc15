"""`headstart serve` over HTTP: what it answers, what it refuses, and how it ends."""

import json
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import Project, failed, store_of, write_image
from documentation import blocks, first_cells
from serving import LIMITS, Serving, copied, serving
from test_images import bomb


@pytest.fixture(scope="module")
def served(built: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(copied(built, tmp_path_factory.mktemp("serve") / "project"), *LIMITS) as process:
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
        slow.append(socket.create_connection((host, int(port))))
        slow[-1].sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nx")
    time.sleep(0.5)
    code, told = served.post(data)
    assert code == 503 and "24 requests are under way" in told["error"]
    assert served.get("")[0] == 200
    for each in slow:
        each.close()
    end = time.monotonic() + 5
    while served.post(data)[0] != 200:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_what_takes_too_long_is_told(served: Serving, photo: Path) -> None:
    with serving(served.project, "--max-seconds", "1") as served:
        host, port = served.address.removeprefix("http://").rstrip("/").split(":")
        with socket.create_connection((host, int(port))) as slow:
            slow.sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nx")
            slow.settimeout(10)
            assert b"504" in slow.recv(100)
        assert served.post(photo.read_bytes())[0] == 200
        served.process.send_signal(signal.SIGTERM)
        assert served.ended() == -signal.SIGTERM


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_it_ends_and_leaves_nothing(
    project: Project, photo: Path, end: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = project.folder / "temporary"
    temporary.mkdir()
    before = set(project.folder.rglob("*"))
    monkeypatch.setenv("TMPDIR", str(temporary))
    with serving(project, "--head", "ridge") as served, ThreadPoolExecutor(8) as clients:
        monkeypatch.undo()
        asked = [clients.submit(served.post, photo.read_bytes(), "details=1") for _ in range(8)]
        asked[0].result()
        # It holds no lock: another command trains beside it.
        (project.artifacts / "heads" / "logreg" / "result.json").unlink()
        assert served.post(photo.read_bytes(), "head=logreg")[0] == 404
        assert project.headstart("heads").trained == ["logreg"]
        assert served.post(photo.read_bytes(), "head=logreg")[0] == 200
        start = time.monotonic()
        served.process.send_signal(end)
        assert served.ended() == (130 if end == signal.SIGINT else -signal.SIGKILL)
        assert time.monotonic() - start < 10
    new = {path.relative_to(project.folder).as_posix() for path in set(project.folder.rglob("*")) - before}
    kept = f"{store_of(project).folder.relative_to(project.folder).as_posix()}/search.rows"  # by `similar`, too
    assert {name for name in new if not name.startswith("artifacts/heads/")} == {"serve0.log", kept}
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
    with serving(project, "--host", "0.0.0.0") as open_to_all:
        assert "everybody who can reach this machine" in open_to_all.said


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
