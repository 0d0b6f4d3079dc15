"""`headstart watch` in a process of its own: real edits, beside other commands, and ended."""

import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import HEADSTART, ROOT, Project, failed
from serving import SECONDS, until

from cache.files import lock
from pipeline.common.edits import Edits
from pipeline.config.load import load_config


class Watching:
    """A process that watches a project, and what it has said so far."""

    def __init__(self, project: Project) -> None:
        self._log = project.folder / "watch.log"
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        with open(self._log, "w") as log:
            self.process = subprocess.Popen(
                [*HEADSTART, "watch", "--port", "0"], cwd=project.folder, env=env, stdout=log, stderr=log
            )
        self._seen = 0

    def until(self, words: str) -> str:
        """What is said until these words come, since the last time."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            text = self._log.read_text()[self._seen :]
            if words in text:
                self._seen += len(text)
                return text
            time.sleep(0.02)
        raise AssertionError(f"{words!r} was not said: {self._log.read_text()}")


@pytest.fixture
def watching(project: Project) -> Iterator[Watching]:
    found = Watching(project)
    yield found
    found.process.kill()
    found.process.wait()


def strength(project: Project, value: float) -> None:
    """Edit the regularisation of the baseline, as an editor does: a new file in the place of the old one."""
    lines = [line for line in project.config.read_text().splitlines() if "params" not in line]
    at = lines.index('estimator = "LogisticRegression"')
    new = project.folder / "headstart.toml~"
    new.write_text("\n".join([*lines[: at + 1], f"params = {{ C = {value} }}", *lines[at + 1 :]]) + "\n")
    new.replace(project.config)


def has_pidfds() -> bool:
    """Old kernels, and some that are no real ones, have none."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


def test_edits_beside_other_commands_and_the_end(project: Project, watching: Watching) -> None:
    watching.until("waiting for edits")
    strength(project, 0.01)
    assert "logreg: validation" in watching.until("waiting for edits")
    # In place, and at once: where it was emptied first, that could be read, and told, before the rest was written.
    size = project.config.stat().st_size
    with open(project.config, "a") as file:
        file.write("[heads.")
    assert "expected TOML" in watching.until("waiting for edits")
    os.truncate(project.config, size)
    assert "nothing to train" in watching.until("waiting for edits")
    # It holds no lock while it waits: another command trains at once.
    (project.artifacts / "heads" / "ridge" / "result.json").unlink()
    assert project.headstart("heads").trained == ["ridge"]
    # While another holds one, it says so, and waits.
    with lock(project.artifacts / "heads", print):
        strength(project, 0.02)
        assert f"process {os.getpid()}" in watching.until("waiting for process")
        assert watching.process.poll() is None
    assert "logreg: validation" in watching.until("waiting for edits")
    watching.process.send_signal(signal.SIGINT)
    assert watching.process.wait(SECONDS) == 130 and "headstart: interrupted" in watching.until("interrupted")
    assert project.headstart("verify").code == 0
    assert project.headstart("heads").out.rstrip().endswith("heads: up to date")


def test_killed_while_it_trains_it_loses_nothing(project: Project, watching: Watching) -> None:
    watching.until("waiting for edits")
    strength(project, 0.03)
    watching.until("changed")
    watching.process.kill()
    assert watching.process.wait(SECONDS) == -signal.SIGKILL
    assert project.headstart("verify").code == 0
    assert project.make("report").code == 0


@pytest.mark.skipif(not has_pidfds(), reason="without descriptors of processes it does not know when make ends")
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_make_that_is_killed_leaves_nobody_who_watches(project: Project, end: signal.Signals) -> None:
    """Not with all that it started, as a terminal does it, but alone."""
    (project.folder / "installed").touch()
    program = project.folder / "watches"
    program.write_text(f'#!/bin/sh\necho $$ >pid\nexec {shlex.join(HEADSTART)} "$@" --port 0\n')
    program.chmod(0o755)
    log = project.folder / "make.log"
    with open(log, "w") as out:
        make = subprocess.Popen(
            ["make", "watch", "SETUP=installed", f"HEADSTART={program}"],
            cwd=project.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        until(lambda: "waiting for edits" in log.read_text())
        watching = os.pidfd_open(int((project.folder / "pid").read_text()))
        make.send_signal(end)
        assert make.wait(SECONDS) == -end
        assert select.select([watching], [], [], SECONDS)[0], "it still watches"
        os.close(watching)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(make.pid, signal.SIGKILL)


def test_a_port_that_is_taken_is_found_before_anything_runs(project: Project) -> None:
    shutil.rmtree(project.artifacts / "heads")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        outcome = project.headstart("watch", "--port", str(taken.getsockname()[1]))
    assert "name another port with --port" in failed(outcome) and not outcome.trained


def test_what_is_edited_while_it_begins_is_not_lost(project: Project) -> None:
    shutil.rmtree(project.artifacts / "heads")
    watching = Watching(project)
    try:
        watching.until("trained: logreg")
        (project.photos / "cat" / "cat0.png").unlink()
        watching.until("cat0.png changed")
        assert "no head is trained" not in watching.until("waiting for edits")
    finally:
        watching.process.kill()
        watching.process.wait()
    assert "Everything is up to date" in project.headstart("leaderboard").out


def told(edits: Edits, path: Path) -> None:
    """Wait until a change of this file is told."""
    while path not in edits.next():
        pass


@pytest.mark.parametrize("how", ["moved", "made anew", "moved at once"])
def test_a_folder_of_images_that_goes_and_comes_back_is_followed(project: Project, how: str) -> None:
    config, away = load_config(project.config), project.folder / "away"
    new = project.photos / "cat" / "new.png"
    with Edits(project.config) as edits:
        assert edits.follow(config) and not edits.follow(config)
        project.photos.rename(away)
        if how != "moved at once":
            told(edits, project.photos)
            assert edits.follow(config) and edits.names == ["headstart.toml"]
        if how == "made anew":
            shutil.copytree(away, project.photos)
        else:
            away.rename(project.photos)
        told(edits, project.photos)
        assert edits.follow(config) and edits.names == ["headstart.toml", "photos/"]
        new.write_text("x")  # at once: what is changed after `follow` is told
        told(edits, new)


def test_what_is_followed(project: Project) -> None:
    """The configuration alone at first, then what it names; not what lies beside it."""
    own = project.folder / "my_heads.py"
    own.write_text("def build(shape, classes):\n    return []\n")
    with Edits(project.config) as edits:
        project.config.write_text(
            project.config.read_text() + '[heads.own]\nkind = "keras"\nbuild = "my_heads.py:build"\n'
        )
        assert edits.next() == {project.config}
        edits.follow(load_config(project.config))
        assert edits.names == ["headstart.toml", "my_heads.py", "photos/"]
        for path in (project.folder / "notes.txt", own, project.photos / "cat" / "more" / "x.png"):
            path.parent.mkdir(exist_ok=True)
            path.write_text("x")
        # Of a file that comes right after its folder, the folder may be all that is told: all of it is looked through then.
        seen: set[Path] = set()
        while not {own, project.photos / "cat" / "more"} <= seen:
            seen |= edits.next()
        assert project.folder / "notes.txt" not in seen
