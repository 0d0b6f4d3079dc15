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


def test_without_optuna_it_is_one_line(tmp_path: Path) -> None:
    project = Project(tmp_path).create(SWEEP)
    write_photos(project.photos, {"cat": 20, "dog": 20})
    assert project.headstart("features").code == 0
    (tmp_path / "optuna.py").write_text("raise ImportError('No module named optuna')")
    outcome = project.headstart("sweep", env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    assert outcome.code == 1 and "Traceback" not in outcome.out
    assert 'strategy "tpe": expected the package optuna' in outcome.out
