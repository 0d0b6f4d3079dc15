"""Sweeps that are killed, fail, diverge, or do not fit into memory."""

import re
import time
from pathlib import Path

import numpy as np
from conftest import CONFIG, SMALL, Project, result, trials, write_photos
from forked import Forked


def test_a_sweep_that_fails_keeps_no_other_from_running_and_is_tried_again(tmp_path: Path) -> None:
    text = CONFIG + "".join(
        f"""
[sweeps.{name}]
head = "logreg"
grid = {{ params.C = {values} }}
"""
        for name, values in (("half", "[-1.0, 1.0]"), ("none", "[-1.0, -2.0]"), ("whole", "[0.1, 1.0]"))
    )
    project = Project(tmp_path).create(text)
    write_photos(project.photos, {"cat": 20, "dog": 20})
    assert project.headstart("features").code == 0
    for _ in range(2):  # and once more, as what failed is tried again
        outcome = project.headstart("sweep")
        assert outcome.code == 1 and "Traceback" not in outcome.out
        assert "failed: sweep 'half': 1 of 2 trials failed: params.C = -1.0: LogisticRegression" in outcome.out
        assert "failed: sweep 'none': expected a trial with a result, found none" in outcome.out
    status = project.headstart("status").out
    assert re.search("sweep half +stale: 1 of 2 trials failed, and will be tried again", status), status
    assert re.search("sweep none +stale: never run", status) and re.search("sweep whole +up to date", status), status
    assert re.search("head half +up to date", status) and re.search("head whole +up to date", status), status
    assert [row["complete"] for row in trials(project, "half")] == ["True", "False"]
    assert project.headstart("heads").code == 0
    report = project.headstart("report")
    assert "report: sweep none is not in it: never run; run `make sweep`" in report.out, report.out
    project.edit("[-1.0, 1.0]", "[10.0, 1.0]")
    outcome = project.headstart("sweep", "half")
    assert outcome.code == 0 and "2 trials, 1 of them known before" in outcome.out, outcome.out


def test_a_killed_sweep_goes_on_where_it_was(tmp_path: Path) -> None:
    rates = ", ".join(f"{rate:.6f}" for rate in np.geomspace(1e-4, 1e-2, 12))
    text = SMALL + (f'[sweeps.many]\nhead = "small"\ngrid = {{ units = [[4], [5], [6]], learning_rate = [{rates}] }}\n')
    project = Project(tmp_path).create(text)
    write_photos(project.photos, {"cat": 20, "dog": 20})
    assert project.headstart("features").code == 0
    process = Forked(project.folder, "sweep")
    ledger = project.artifacts / "sweeps" / "many" / "trials.jsonl"
    end = time.monotonic() + 150
    while not (ledger.exists() and len(ledger.read_text().splitlines()) >= 12) and time.monotonic() < end:
        time.sleep(0.01)
    process.kill()
    process.wait()
    kept = len(ledger.read_text().splitlines())
    assert 12 <= kept < 36
    with open(ledger, "a") as file:
        file.write('0123456789abcdef {"key": "torn')
    outcome = project.headstart("sweep")
    assert outcome.code == 0 and f"36 trials, {kept} of them known before" in outcome.out, outcome.out
    assert len(trials(project, "many")) == 36


def test_a_trial_that_diverges_is_told_and_spoils_nothing(tmp_path: Path) -> None:
    text = SMALL + ('[sweeps.wild]\nhead = "small"\ngrid = { optimizer = ["sgd"], learning_rate = [1e-2, 1e30] }\n')
    text += """[sweeps.hot]
head = "small"
strategy = "halving"
grid = { optimizer = ["sgd"], learning_rate = [1e-2, 1e30, 1e35], units = [[], [8]] }
[sweeps.slopes]
head = "small"
grid = { optimizer = ["sgd", "adam"], momentum = [0.5, 0.9] }
"""
    project = Project(tmp_path).create(text)
    write_photos(project.photos, {"cat": 20, "dog": 20})
    outcome = project.make("sweep", "report")
    assert outcome.code == 0 and outcome.reported, outcome.out
    assert "up to date" in project.headstart("sweep").out
    # A momentum belongs to sgd; adam has none, and is one trial.
    assert sorted(row["momentum"] for row in trials(project, "slopes")) == ["", "0.5", "0.9"]
    slopes = result(project, "sweeps", "slopes")["effects"]["momentum"]
    assert [(each["value"], each["trials"]) for each in slopes] == [("0.5", 1), ("0.9", 1)]
    good, bad = trials(project, "wild")
    assert bad["problem"] == "training diverged" and bad["accuracy"] == "" and float(good["accuracy"]) > 0
    assert [each["trials"] for each in result(project, "sweeps", "wild")["effects"]["learning_rate"]] == [1, 0]
    assert "up to date" in project.headstart("report").out
    # What is edited in the head makes its sweep stale, and its winner says so.
    project.edit("units = [8]\nepochs = 6", "units = [8]\nepochs = 5")
    asked = project.headstart("predict", "--head", "wild", str(project.photos / "cat"))
    assert (
        asked.code == 1 and "the winner of sweep 'wild' is not known: head small changed; run `make sweep`" in asked.out
    )


def test_a_sweep_over_bases_streamed_and_refitted(tmp_path: Path) -> None:
    """A head on several bases, whose layers have other names; features that memory does not hold."""
    text = (
        CONFIG[: CONFIG.index("[base]")]
        + """
[bases.vgg]
name = "VGG16"
input_size = 32
weights = "random"
precision = "float32"
[bases.mobile]
name = "MobileNetV2"
input_size = 32
weights = "random"
precision = "float32"
[cache]
memory = "500 kB"
[heads.both]
kind = "dense"
base = ["vgg", "mobile"]
units = [8]
epochs = 2
refit = true
[sweeps.bases]
head = "both"
refit = true
grid = { base = ["vgg", "mobile"], pool = ["avg", "flatten"] }
"""
    )
    project = Project(tmp_path).create(text)
    write_photos(project.photos, {"cat": 130, "dog": 130})
    assert project.headstart("features").code == 0
    outcome = project.make("heads", "sweep", "report")
    assert outcome.code == 0 and outcome.trained == ["bases", "both@mobile", "both@vgg"], outcome.out
    assert "they are streamed" in outcome.out
    assert len(trials(project, "bases")) == 4
