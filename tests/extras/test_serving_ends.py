"""How `headstart serve` begins and ends: what it refuses to begin with, and what it leaves behind."""

import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import Project, failed, store_of, write_image
from serving import serving, until


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return write_image(tmp_path / "new.jpg", 77, (300, 200))


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
        assert time.monotonic() - start < 25, "it waited for what was under way, which may take 30 seconds"
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


# The first file of rows is never written to its end.
SLOW = "import time, numpy; numpy.save = lambda *_, **__: time.sleep(600); from pipeline.cli import main; main()"


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_what_it_is_writing_when_it_ends_is_removed(project: Project, photo: Path, end: signal.Signals) -> None:
    folder = store_of(project).folder
    with serving(project, code=SLOW) as served, ThreadPoolExecutor(1) as client:
        client.submit(served.post, photo.read_bytes(), "details=1")
        until(lambda: list(folder.glob(".tmp-*")))
        served.process.send_signal(end)
        assert served.ended() == (130 if end == signal.SIGINT else -signal.SIGTERM)
    assert not list(folder.glob(".tmp-*"))
