"""make as a user meets it: targets, names, processes of its own, and what stands last on the screen."""

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import CONFIG, SMALL, Outcome, Project, write_photos

HEADSTART_PROGRAM = Path(sys.executable).parent / "headstart"
# As headstart does when it is interrupted.
WAITS = """
import sys, time
try:
    print("started", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("headstart: interrupted", file=sys.stderr)
    sys.exit(130)
"""


def test_make_help_lists_every_target(empty: Callable[[], Project]) -> None:
    out = empty().make().out
    for target in ("setup", "demo", "test", "features", "heads", "report", "status", "help"):
        assert f"make {target}" in out


def test_make_without_an_environment_says_what_it_would_do_and_does_not_recurse(empty: Callable[[], Project]) -> None:
    project = empty()
    done = subprocess.run(["make", "-n", "report"], cwd=project.folder, capture_output=True, text=True, timeout=150)
    assert "-m venv" in done.stdout and "pip install" in done.stdout
    assert not (project.folder / ".venv").exists()


@pytest.mark.parametrize(
    "name", ["with space.toml", "pct%.toml", "eq=x.toml", "semi;x.toml", "hash#x.toml", "quo'te.toml"]
)
def test_any_name_of_a_configuration(project: Project, name: str) -> None:
    shutil.copy(project.config, project.folder / name)
    assert project.make("-q", "report", f"CONFIG={name}").code == 0
    project.edit('estimator = "RidgeClassifierCV"', 'estimator = "RidgeClassifier"')
    shutil.copy(project.config, project.folder / name)
    assert project.make("-q", "report", f"CONFIG={name}").code == 1


def test_from_photos_to_the_report_in_processes_of_its_own(tmp_path: Path) -> None:
    project = Project(tmp_path).create(CONFIG)
    write_photos(project.photos, {"cat": 20, "dog": 20})
    outcome = project.make("report", cold=True)
    assert outcome.code == 0, outcome.out
    assert (outcome.extracted, outcome.trained, outcome.reported) == (40, ["logreg", "ridge"], True)
    outcome = project.make("report", cold=True)
    assert outcome.code == 0 and "Nothing to be done" in outcome.out, outcome.out


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("input_size = 32", "input_sise = 32", "unknown field (did you mean 'input_size'?)"),
        ("LogisticRegression", "LogisticRegresion", "scikit-learn has no such classifier (did you mean"),
        ('root = "photos"', 'root = "photso"', "photso: expected a folder of images, found nothing"),
    ],
)
@pytest.mark.parametrize("flags", [(), ("-j2",)])
def test_an_error_is_said_last_and_once(
    project: Project, old: str, new: str, says: str, flags: tuple[str, ...]
) -> None:
    """While the graph is made, and in a recipe."""
    project.edit(old, new)
    outcome = project.make("report", *flags)
    told_alone(project, outcome, says)


def told_alone(project: Project, outcome: Outcome, says: str) -> None:
    """The last line is the error as headstart says it, and make says nothing."""
    last = outcome.out.splitlines()[-1]
    assert outcome.code == 1 and last.startswith("headstart: ") and says in last, outcome.out
    assert outcome.out.count(says) == 1 and "Traceback" not in outcome.out
    assert not [line for line in outcome.out.splitlines() if "***" in line or line.startswith("make")], outcome.out
    assert not list(project.folder.glob("artifacts/make/*.error*"))


@pytest.mark.parametrize("goals", [("status",), ("status", "report"), ("report", "sweep")])
def test_an_error_is_said_alone_whatever_the_goals(project: Project, goals: tuple[str, ...]) -> None:
    project.edit("input_size = 32", "input_sise = 32")
    told_alone(project, project.make(*goals), "unknown field (did you mean 'input_size'?)")


def test_an_error_of_watch_is_said_alone(project: Project) -> None:
    """It lives on with one in the configuration, and not where its port is taken, by this test or by somebody else; or without watchfiles."""
    with socket.socket() as taken:
        with suppress(OSError):
            taken.bind(("127.0.0.1", 8765))
            taken.listen()
        told_alone(project, project.make("watch", cold=True), "headstart: ")


def test_an_error_below_what_was_up_to_date_is_said_alone(project: Project) -> None:
    project.config.write_text(
        project.config.read_text() + '[sweeps.bad]\nhead = "ridge"\ngrid = { params = { alhpa = [1.0] } }\n'
    )
    told_alone(project, project.make("features", "sweep"), "no such parameter (did you mean 'alphas'?)")


def test_an_error_of_the_demo_is_said_alone(empty: Callable[[], Project]) -> None:
    project = empty()
    (project.folder / "artifacts").mkdir()
    (project.folder / "artifacts" / "demo").write_text("no folder")
    told_alone(project, project.make("demo"), "artifacts/demo")


@pytest.mark.parametrize(("goals", "named"), [(("report",), "report"), (("features", "report"), "features report")])
def test_that_there_is_nothing_to_be_done_is_said_once(project: Project, goals: tuple[str, ...], named: str) -> None:
    outcome = project.make(*goals)
    assert outcome.code == 0 and outcome.out == f"make: Nothing to be done for '{named}'.\n"
    project.edit("RidgeClassifierCV", "RidgeClassifier")
    outcome = project.make(*goals)
    assert outcome.code == 0 and outcome.trained == ["ridge"] and "Nothing to be done" not in outcome.out, outcome.out


def test_what_was_interrupted_is_said_last(empty: Callable[[], Project]) -> None:
    """As Ctrl-C does it: the signal goes to make, to its shell and to what they started."""
    project = empty()
    slow = project.folder / "slow"
    slow.write_text(f"#!{sys.executable}{WAITS}")
    slow.chmod(0o755)
    (project.folder / "installed").touch()
    command = ["make", "status", "SETUP=installed", f"HEADSTART={slow}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=project.folder, start_new_session=True, **pipes) as process:
        assert process.stdout and process.stdout.readline() == "started\n"
        os.killpg(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=150)
    assert process.returncode and error == "headstart: interrupted\n"
    assert not list(project.artifacts.glob("make/*.error*"))


def test_what_ends_a_command_without_a_word_is_told_by_make(project: Project) -> None:
    project.edit("RidgeClassifierCV", "RidgeClassifier")
    killed = project.folder / "killed"
    killed.write_text(f'#!/bin/sh\n[ "$1" = heads ] && kill -9 $$\nexec "{HEADSTART_PROGRAM}" "$@"\n')
    killed.chmod(0o755)
    command = ["make", "heads", "SETUP=installed", f"HEADSTART={killed}"]
    done = subprocess.run(command, cwd=project.folder, capture_output=True, text=True)
    assert done.returncode == 1 and "heads.stamp] Error 137" in done.stderr.splitlines()[-1], done.stderr


@pytest.mark.parametrize("goals", [("report", "sweep"), ("sweep", "report"), ("-j2", "report", "sweep")])
def test_sweeps_come_before_the_report_whatever_the_order(project: Project, goals: tuple[str, ...]) -> None:
    """The report is up to date before, and would not know of the sweep."""
    project.config.write_text(
        project.config.read_text() + '[sweeps.strength]\nhead = "logreg"\ngrid = { params = { C = [0.1, 1.0] } }\n'
    )
    assert project.make("-q", "report").code == 0
    assert project.make("-q", *goals).code == 1
    outcome = project.make(*goals)
    assert outcome.code == 0 and outcome.trained == ["strength"] and outcome.reported, outcome.out
    assert "Nothing to be done" not in outcome.out, outcome.out
    assert "stale" not in project.headstart("status").out
    assert project.make("-q", *goals).code == 0


def test_tensorflow_warns_of_no_retracing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nor where it was imported before headstart came to it, as it was here."""
    import keras

    assert keras.__version__
    logging.getLogger("tensorflow").setLevel(logging.WARNING)
    text = (
        SMALL.replace("epochs = 6", "epochs = 1")
        + '[sweeps.width]\nhead = "small"\ngrid = { units = [[2], [3], [4], [5], [6], [7], [8]] }\n'
    )
    project = Project(tmp_path).create(text)
    write_photos(project.photos, {"cat": 20, "dog": 20})
    for command in ("features", "sweep"):
        assert project.headstart(command).code == 0
    assert "retracing" not in caplog.text
