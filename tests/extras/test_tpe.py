"""A sweep that learns where to look, through Optuna."""

from pathlib import Path

from conftest import ROOT, SMALL, Project, trials, write_photos

SWEEP = (
    SMALL
    + """
[sweeps.learn]
head = "small"
strategy = "tpe"
trials = 20
grid = { units = [[], [8]], learning_rate = { low = 1e-6, high = 1e-1, log = true }, batch_size = { low = 8, high = 32 } }
"""
)


def test_it_finds_rates_that_learn_and_goes_on_where_it_was(tmp_path: Path) -> None:
    project = Project(tmp_path).create(SWEEP)
    write_photos(project.photos, {"cat": 30, "dog": 30})
    assert project.headstart("features").code == 0
    outcome = project.headstart("sweep")
    assert outcome.code == 0 and outcome.trained == ["learn"], outcome.out
    before = trials(project, "learn")
    assert len(before) == 20
    assert all(1e-6 <= float(row["learning_rate"]) <= 1e-1 and 8 <= int(row["batch_size"]) <= 32 for row in before)
    # What was asked first is asked again, and is known.
    project.edit("trials = 20", "trials = 24")
    lines = (project.artifacts / "sweeps" / "learn" / "trials.jsonl").read_text().splitlines()
    assert project.headstart("sweep").code == 0
    after = (project.artifacts / "sweeps" / "learn" / "trials.jsonl").read_text().splitlines()
    assert after[:20] == lines and len(after) == 24
    keys = {row["key"] for row in before}
    assert keys < {row["key"] for row in trials(project, "learn")}


def test_it_goes_down_where_low_is_good_and_away_from_what_diverged(tmp_path: Path) -> None:
    grid = "grid = { learning_rate = { low = 1e-6, high = 1e30, log = true } }"
    text = SMALL.replace('"adam"', '"sgd"') + f'[sweeps.learn]\nhead = "small"\nstrategy = "tpe"\ntrials = 40\n{grid}\n'
    project = Project(tmp_path).create(text + '[report]\nmetric = "log_loss"\n')
    write_photos(project.photos, {"cat": 30, "dog": 30})
    outcome = project.make("sweep")
    assert outcome.code == 0, outcome.out
    rows = trials(project, "learn")
    keys = [
        line.split('"key": "')[1][:64]
        for line in (project.artifacts / "sweeps" / "learn" / "trials.jsonl").read_text().splitlines()
    ]
    loss = {row["key"]: float(row["score"] or "inf") for row in rows}
    first, last = ([loss[key] for key in keys[part]] for part in (slice(16), slice(-16, None)))
    assert loss[rows[0]["key"]] == min(loss.values())
    assert sorted(last)[8] < sorted(first)[8] and sum(each == float("inf") for each in last) <= 4


def test_without_optuna_it_is_one_line(tmp_path: Path) -> None:
    project = Project(tmp_path).create(SWEEP)
    write_photos(project.photos, {"cat": 20, "dog": 20})
    assert project.headstart("features").code == 0
    (tmp_path / "optuna.py").write_text("raise ImportError('No module named optuna')")
    outcome = project.headstart("sweep", env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    assert outcome.code == 1 and "Traceback" not in outcome.out
    assert 'strategy "tpe": expected the package optuna' in outcome.out
