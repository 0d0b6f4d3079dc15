"""Ledgers of sweeps that earlier versions wrote, which knew nothing of groups, or of folds, in intervals: measured anew, trained never."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, Project, result, write_photos

from cache.files import seal, write_text
from cache.manifest import Manifest
from stages.heads.intervals import wilson
from stages.sweeps.ledger import Ledger, Record
from stages.sweeps.measure import IN_FOLDS

GROUPED = (
    SMALL.replace("[data]\n", '[data]\ngroup = "groups.csv"\n')
    + """
[sweeps.strength]
head = "logreg"
cv = 2
grid = { params = { C = [1e-4, 1e-2, 1.0] } }

[sweeps.halved]
head = "small"
strategy = "halving"
grid = { learning_rate = [1e-4, 1e-3, 1e-2] }
"""
)


def as_before(record: Record) -> Record:
    """As a version wrote it in which groups were in no interval of a trial."""
    return replace(record, scores=tuple(score._replace(effect=None) for score in record.scores))


def of_groups_alone(record: Record) -> Record:
    """As a version wrote it in which folds were in no interval of a trial."""
    scores = [
        score if score.effect is None else score._replace(effect=score.effect / IN_FOLDS) for score in record.scores
    ]
    return replace(record, scores=tuple(scores))


def write_again(folder: Path, as_it_was: Callable[[Record], Record]) -> None:
    """The ledger of a sweep, as an earlier version left it."""
    ledger = Ledger(folder / "trials.jsonl")
    (folder / "trials.jsonl").unlink()
    Ledger(folder / "trials.jsonl").add([as_it_was(record) for record in ledger.values()])


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("grouped") / "project").create(GROUPED)
    write_photos(project.photos, {"cat": 60, "dog": 60})
    lines = [f"{name}/{name}{i}.png,{name}{i // 4}" for name in ("cat", "dog") for i in range(60)]
    (project.folder / "groups.csv").write_text("\n".join(["filename,group", *lines]) + "\n")
    assert project.make("sweep").code == 0
    return project


@pytest.fixture
def project(grouped: Project, tmp_path: Path) -> Project:
    shutil.copytree(grouped.folder, tmp_path / "project")
    return Project(tmp_path / "project")


def test_a_sweep_counts_groups_also_where_an_earlier_version_trained_its_trials(project: Project) -> None:
    found = {name: result(project, "sweeps", name) for name in ("strength", "halved")}
    rows = {}
    for name, each in found.items():
        assert each["parts"]["groups_count"] is True
        folder = project.artifacts / "sweeps" / name
        last = Ledger(folder / "trials.jsonl")[each["winner"]["key"]].scores[-1]
        rows[name] = last.rows
        assert last.effect is not None and each["winner"]["accuracy_interval"] == list(last.interval)
        # As an earlier version left it: without groups in its intervals.
        write_again(folder, as_before)
        parts = {part: value for part, value in each["parts"].items() if part != "groups_count"}
        before = {key: value for key, value in each.items() if key != "checksum"} | {"parts": parts}
        write_text(folder / "result.json", seal(json.dumps(before, indent=1)) + "\n")
    status = project.headstart("status").out
    assert status.count("intervals of trials count the images of a group as fewer now") == 2, status
    outcome = project.make("sweep")
    assert outcome.code == 0 and outcome.out.count("3 trials, 3 of them known before") == 2, outcome.out
    for name, each in found.items():
        assert result(project, "sweeps", name) == each
        # One that kept no outcomes, either: each group counts as one image.
        folder = project.artifacts / "sweeps" / name
        for path in (folder / "outcomes").iterdir():
            path.unlink()
        (folder / "result.json").unlink()
    outcome = project.make("sweep")
    assert outcome.code == 0 and outcome.out.count("3 trials, 3 of them known before") == 2, outcome.out
    manifest = Manifest.load(project.artifacts / "manifest.json")
    for name, splits in (("strength", ("train", "validation")), ("halved", ("validation",))):
        winner = result(project, "sweeps", name)["winner"]
        pairs = zip(manifest.records, manifest.groups, strict=True)
        groups = len({group for record, group in pairs if record.split in splits})
        told = groups / (IN_FOLDS if name == "strength" else 1)
        assert winner["accuracy_interval"] == pytest.approx(wilson(winner["accuracy"] * told, told))
        assert groups < rows[name] / 3 and result(project, "sweeps", name)["corrected"] is None


def test_folds_count_also_where_an_earlier_version_knew_of_groups_alone(project: Project) -> None:
    """Its ledger has an effect, which does not say that folds are not in it; the outcomes tell, and nothing is trained again."""
    folder, before = project.artifacts / "sweeps" / "strength", result(project, "sweeps", "strength")
    write_again(folder, of_groups_alone)
    narrow = Ledger(folder / "trials.jsonl")[before["winner"]["key"]].scores[-1].interval
    assert IN_FOLDS * np.ptp(narrow) > np.ptp(before["winner"]["accuracy_interval"]) > 1.1 * np.ptp(narrow)
    (folder / "result.json").unlink()
    outcome = project.make("sweep")
    assert outcome.code == 0 and "sweep strength: 3 trials, 3 of them known before" in outcome.out, outcome.out
    assert result(project, "sweeps", "strength") == before
    # Nor is it trained again, or measured otherwise, once that was done.
    (folder / "result.json").unlink()
    assert "3 of them known before" in project.make("sweep").out and result(project, "sweeps", "strength") == before
