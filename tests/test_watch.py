"""What `headstart watch` does between two edits, and the page that it serves; tests/extras/test_watching.py follows real edits in a process of its own."""

import re
import socket
import sys
import threading
from collections import defaultdict
from http.client import HTTPConnection
from pathlib import Path

import pytest
from conftest import Project, failed, write_image

from pipeline.cli.console import Terminal
from pipeline.commands.watch import LiveProject
from pipeline.config.load import Config
from stages.report.live import LivePage


@pytest.fixture
def watched(project: Project) -> LiveProject:
    watched = LiveProject(project.config, Terminal())
    watched.bring_up_to_date()
    assert watched.report is not None
    return watched


def test_an_edit_trains_what_is_stale_and_says_what_became_of_it(
    project: Project, watched: LiveProject, capfd: pytest.CaptureFixture[str]
) -> None:
    watched.warm_up()
    project.edit('estimator = "LogisticRegression"', 'estimator = "LogisticRegression"\nparams = { C = 0.001 }')
    watched.bring_up_to_date()
    said = capfd.readouterr().err
    assert "trained: logreg" in said and "ridge" not in said and "report: written" in said
    (row,) = [line for line in said.splitlines() if line.startswith("logreg: ")]
    assert "of 2 (was " in row
    watched.bring_up_to_date()
    assert "nothing to train" in capfd.readouterr().err
    assert "report: up to date" in project.headstart("report").out


def test_what_is_edited_before_it_is_followed_is_read(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    def follow(_: Config) -> bool:
        if later := "[heads.later]" not in project.config.read_text():
            project.config.write_text(
                project.config.read_text() + '[heads.later]\nkind = "sklearn"\nestimator = "LinearSVC"\n'
            )
        return later

    LiveProject(project.config, Terminal(), follow).bring_up_to_date()
    assert "trained: later" in capfd.readouterr().err


def test_a_head_that_is_removed_is_told(
    project: Project, watched: LiveProject, capfd: pytest.CaptureFixture[str]
) -> None:
    project.edit('[heads.ridge]\nkind = "sklearn"\nestimator = "RidgeClassifierCV"\n', "")
    watched.bring_up_to_date()
    assert "ridge: no longer in the leaderboard" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[data]", "[data", "headstart.toml: expected TOML"),
        ("[heads.logreg]", "[heads.logreg]\nepocs = 3", "epocs"),
        ('estimator = "LogisticRegression"', 'estimator = "LogisticRegresion"', "did you mean"),
        ('estimator = "LogisticRegression"', 'estimator = "LogisticRegression"\nparams = { C = -1.0 }', "failed: head 'logreg'"),
        ('root = "photos"', 'root = "photso"', "expected a folder of images"),
    ],
)  # fmt: skip
def test_an_edit_that_cannot_be_trained_is_one_line_and_the_next_one_is_awaited(
    project: Project, watched: LiveProject, capfd: pytest.CaptureFixture[str], old: str, new: str, says: str
) -> None:
    page = watched.report
    assert page is not None
    before = page.read_bytes()
    capfd.readouterr()
    text = project.config.read_text()
    project.edit(old, new)
    watched.bring_up_to_date()
    said = capfd.readouterr().err
    assert len([line for line in said.splitlines() if says in line]) == 1 and "Traceback" not in said, said
    assert "watch: up to date" not in said and "nothing to train" not in said, said
    assert page.read_bytes() == before
    project.config.write_text(text)
    watched.bring_up_to_date()
    assert "report: up to date" in project.headstart("report").out


def test_new_images_are_extracted(project: Project, watched: LiveProject, capfd: pytest.CaptureFixture[str]) -> None:
    write_image(project.photos / "cat" / "new.png", 5)
    watched.bring_up_to_date()
    said = capfd.readouterr().err
    assert "1 images extracted" in said and "trained: logreg" in said and "logreg: validation" in said


def get(address: str, path: str, **headers: str) -> tuple[int, str]:
    connection = HTTPConnection(address.removeprefix("http://").rstrip("/"), timeout=60)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    return response.status, response.read().decode()


def test_the_page_that_is_served_reloads_itself_and_the_file_does_not(tmp_path: Path) -> None:
    file = tmp_path / "index.html"
    with LivePage(0, lambda: file) as page:
        assert get(page.address, "/")[0] == 200 and get(page.address, "/stamp") == (200, "none")
        policy = '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:">'
        file.write_text(f"<html><head>{policy}</head><body>one</body></html>")
        code, served = get(page.address, "/")
        stamp = get(page.address, "/stamp")[1]
        nonce = served.partition('<script nonce="')[2].partition('"')[0]
        assert code == 200 and "one" in served and f'"{stamp}"' in served
        assert nonce and f"script-src 'nonce-{nonce}'; connect-src 'self'; img-src data:" in served
        assert "script" not in file.read_text()
        # As headstart writes it: in the place of another, whose number is taken. One clock tick may be the time of both.
        (tmp_path / "new.html").write_text("<html><head></head>two</html>")
        (tmp_path / "new.html").replace(file)
        assert "two" in get(page.address, "/")[1] and get(page.address, "/stamp")[1] != stamp
        assert get(page.address, "/../headstart.toml")[0] == 404
        assert get(page.address, "/", Host="example.com")[0] == 403  # a site whose name was turned to this address


def test_a_page_that_is_served_has_the_stamp_of_what_it_shows(tmp_path: Path) -> None:
    """Also where the report is written again at that moment, as else the page would stay as it is."""
    file, ended = tmp_path / "index.html", threading.Event()
    # Where a file system gives numbers of files again, several that were written in one tick of its clock have one stamp.
    stamps: defaultdict[str, set[str]] = defaultdict(set)

    def write(number: int) -> None:
        new = tmp_path / "new.html"
        new.write_text(f"<html><head></head><b>{number}</b>{'x' * 1_000_000}</html>")
        stamps[f"{new.stat().st_ino}-{new.stat().st_mtime_ns}"].add(str(number))
        new.replace(file)

    def write_on() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            write(number)

    write(0)
    writer = threading.Thread(target=write_on)
    with LivePage(0, lambda: file) as page:
        writer.start()
        try:
            for _ in range(60):
                served = get(page.address, "/")[1]
                seen = served.partition('const seen = "')[2].partition('"')[0]
                assert served.partition("<b>")[2].partition("</b>")[0] in stamps[seen]
        finally:
            ended.set()
            writer.join()


def test_the_page_of_no_report_is_html(tmp_path: Path) -> None:
    with LivePage(0, lambda: None) as page:
        served = get(page.address, "/")[1]
    assert re.findall(r"<(/?(?:html|head|title|script|body))\b", served) == [
        "html", "head", "title", "/title", "script", "/script", "/head", "body", "/body", "/html",
    ]  # fmt: skip


def test_it_says_what_it_lacks(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    assert "install headstart[watch]" in failed(project.headstart("watch"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Exception, match="name another port with --port"):
            LivePage(taken.getsockname()[1], lambda: None)
