"""Sweeps: what is tried, what is kept, what is trained again, and that the winner is an ordinary head."""

import re
import shutil

import numpy as np
import pytest
from conftest import SWEEPS, Project, result, trials, write_photos

from cache import Manifest
from pipeline.common.trained import chosen_among, trained_head
from pipeline.config.load import load_config
from pipeline.targets.graph import load_graph
from stages.heads.intervals import wilson
from stages.sweeps import halving
from stages.sweeps.measure import IN_FOLDS


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("swept")).create(SWEEPS)
    write_photos(project.photos, {"cat": 40, "dog": 40})
    outcome = project.make("sweep")
    assert outcome.code == 0, outcome.out
    assert outcome.trained == ["fast", "noise", "strength", "width"]
    return project


def test_every_trial_is_in_the_table_with_its_score_and_interval(swept: Project) -> None:
    rows = trials(swept, "width")
    assert sorted((row["units"], row["learning_rate"]) for row in rows) == [
        ("[8]", "0.0001"), ("[8]", "0.01"), ("[]", "0.0001"), ("[]", "0.01"),
    ]  # fmt: skip
    accuracies = [float(row["accuracy"]) for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    assert all(float(row["low"]) <= float(row["accuracy"]) <= float(row["high"]) for row in rows)
    effects = result(swept, "sweeps", "width")["effects"]
    for value in effects["learning_rate"]:
        mine = [float(row["accuracy"]) for row in rows if float(row["learning_rate"]) == float(value["value"])]
        assert value["trials"] == 2
        assert (value["mean"], value["best"]) == pytest.approx((np.mean(mine), max(mine)), abs=1e-5)


def test_the_winner_is_a_head_that_scores_what_its_trial_did(swept: Project) -> None:
    found = result(swept, "heads", "width")
    best = result(swept, "sweeps", "width")["winner"]
    assert {name: found["spec"][name] for name in best["params"]} == best["params"]
    assert found["metrics"]["validation"]["accuracy"] == pytest.approx(best["accuracy"], abs=1e-6)
    assert found["metrics"]["validation"]["log_loss"] == pytest.approx(best["log_loss"], rel=1e-3)
    assert (swept.artifacts / "heads" / "width" / "model.keras").exists()
    assert result(swept, "heads", "strength")["spec"]["refit"] is True


def test_halving_drops_the_worst_and_repeats_have_a_spread(swept: Project) -> None:
    rows = trials(swept, "fast")
    assert len(rows) == 8
    epochs = sorted(int(row["trained_epochs"]) for row in rows)
    assert epochs == [1, 1, 1, 1, 2, 2, 4, 6]
    assert sum(row["complete"] == "True" for row in rows) == 1
    assert any(float(row["spread"]) > 0 for row in rows)


def test_without_a_grid_the_head_is_scored_as_it_is(swept: Project) -> None:
    """On every image of train and validation once a seed; and the spread is told."""
    (row,) = trials(swept, "noise")
    assert row["complete"] == "True" and float(row["spread"]) > 0
    best = result(swept, "sweeps", "noise")["winner"]
    images = Manifest.load(swept.artifacts / "manifest.json").records
    scored = sum(record.split != "test" for record in images)
    assert best["accuracy_interval"] == pytest.approx(
        wilson(round(best["accuracy"] * scored) / IN_FOLDS, scored / IN_FOLDS)
    )
    spec = result(swept, "heads", "noise")["spec"]
    assert (spec["units"], spec["epochs"]) == ([8], 6)


def test_a_second_run_does_nothing_and_an_extended_one_what_is_new(swept: Project) -> None:
    assert "sweeps: up to date" in swept.headstart("sweep").out
    assert swept.make("-q", "sweep").code == 0
    before = (swept.artifacts / "sweeps" / "width" / "trials.jsonl").read_text().splitlines()
    swept.edit(
        "units = [[], [8]], learning_rate = [1e-4, 1e-2]", "units = [[], [8], [4]], learning_rate = [1e-4, 1e-2]"
    )
    assert swept.make("-q", "sweep").code == 1
    outcome = swept.make("sweep")
    assert outcome.code == 0 and "sweep width: 6 trials, 4 of them known before" in outcome.out, outcome.out
    assert "sweep strength" not in outcome.out
    after = (swept.artifacts / "sweeps" / "width" / "trials.jsonl").read_text().splitlines()
    assert after[: len(before)] == before and len(after) == len(before) + 2
    status = swept.headstart("status").out
    assert re.search(r"sweep width +up to date +6 trials, best validation accuracy", status), status


def test_the_same_sweep_gives_the_same_numbers(swept: Project) -> None:
    kept = [{name: value for name, value in row.items() if name != "seconds"} for row in trials(swept, "fast")]
    shutil.rmtree(swept.artifacts / "sweeps" / "fast")
    assert swept.headstart("sweep", "fast").code == 0
    assert kept == [{name: value for name, value in row.items() if name != "seconds"} for row in trials(swept, "fast")]


def test_what_waits_on_disk_from_rung_to_rung_comes_to_the_same(
    swept: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = trials(swept, "fast")
    shutil.rmtree(swept.artifacts / "sweeps" / "fast")
    monkeypatch.setattr(halving, "HELD_BYTES", 0)
    assert swept.headstart("sweep", "fast").code == 0
    again = trials(swept, "fast")
    assert [row["key"] for row in again] == [row["key"] for row in kept]
    for row, before in zip(again, kept, strict=True):
        assert (row["trained_epochs"], row["complete"]) == (before["trained_epochs"], before["complete"])
        assert float(row["loss"]) == pytest.approx(float(before["loss"]), rel=1e-4)


def test_among_how_many_the_best_head_was_chosen(swept: Project) -> None:
    """All trials of halving were compared with its winner, those that were dropped too; `noise` has one trial, and no choice."""
    graph = load_graph(load_config(swept.folder / "headstart.toml"))
    best = trained_head(graph, None).entry.name
    trials_of = {name: result(swept, "sweeps", name)["complete"] for name in ("width", "strength", "noise")} | {
        "fast": 8
    }
    assert trials_of["width"] >= 4 and trials_of["noise"] == 1
    every = sum(trials_of.get(name, 1) for name, head in graph.heads.items() if head.result)
    for name, head in graph.heads.items():
        if head.result:
            assert chosen_among(graph, head) == (every if name == best else trials_of.get(name, 1)), name
