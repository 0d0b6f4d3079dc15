"""``[report] metric`` ranks the trials of sweeps, and its change trains nothing that is known."""

import json
from pathlib import Path

import pytest
from conftest import SMALL, Project, result, trials, write_photos

from stages.heads.scored import METRICS
from stages.sweeps.checkpoints import Checkpoints
from stages.sweeps.ledger import Chosen, Ledger, Record, Score

SWEPT = (
    SMALL
    + """
[sweeps.strength]
head = "logreg"
repeats = 2
grid = { params = { C = [1e-5, 1e-3, 1e-1, 10.0] } }

[sweeps.rates]
head = "small"
cv = 2
grid = { learning_rate = [1e-4, 1e-3, 1e-1], label_smoothing = [0.0, 0.3] }

[sweeps.halved]
head = "small"
strategy = "halving"
grid = { learning_rate = [1e-4, 1e-3, 1e-2, 1e-1] }
"""
)


def test_another_metric_ranks_what_is_known_anew(tmp_path: Path) -> None:
    project = Project(tmp_path).create(SWEPT)
    write_photos(project.photos, {"cat": 60, "dog": 25, "fox": 25})
    assert project.make("sweep").code == 0
    before = {name: result(project, "sweeps", name) for name in ("strength", "rates")}
    for metric in ("balanced_accuracy", "log_loss", "macro_f1"):
        text = project.config.read_text().split("\n[report]")[0]
        project.config.write_text(f'{text}\n[report]\nmetric = "{metric}"\n')
        status = project.headstart("status").out
        assert status.count("trials are ranked by another score") == 3, status
        outcome = project.make("sweep", "report")
        assert outcome.code == 0 and outcome.reported, outcome.out
        assert "sweep strength: 4 trials, 4 of them known before" in outcome.out, outcome.out
        assert "sweep rates: 6 trials, 6 of them known before" in outcome.out, outcome.out
        # On the way, of accuracy and log loss alone everything is known.
        assert ("sweep halved: 4 trials, 4 of them known before" in outcome.out) == (metric == "log_loss"), outcome.out
        sign = -1 if METRICS[metric] == "high" else 1
        for name in ("strength", "rates", "halved"):
            found = result(project, "sweeps", name)
            assert found["parts"]["metric"] == metric
            rows = [row for row in trials(project, name) if row["complete"] == "True"]
            order = [(sign * float(row["score"]), float(row["loss"])) for row in rows]
            assert order == sorted(order)
            winner = found["winner"]
            # Of log loss, too, which every score has: computed anew, with what it varies by.
            assert winner["score_spread"] is not None
            assert winner["score"] == pytest.approx(float(rows[0]["score"]), abs=1e-6)
            if name != "halved":
                assert sorted(row["key"] for row in rows) == sorted(each["key"] for each in before[name]["leaders"])
            plain, rest = winner["score"], found["corrected"]
            assert found["optimism"] == pytest.approx(sign * (rest - plain))
            effects = [each["best"] for each in found["effects"][next(iter(found["effects"]))] if each["trials"]]
            if name != "halved":
                assert sign * winner["score"] == pytest.approx(min(sign * each for each in effects))
        head = result(project, "heads", "halved")["metrics"]["validation"]
        halved = result(project, "sweeps", "halved")["winner"]
        assert halved["score"] == pytest.approx(head[metric], rel=1e-3)
        if head[f"{metric}_interval"]:
            assert halved["score_interval"] == pytest.approx(head[f"{metric}_interval"], rel=1e-2)
        page = (project.artifacts / "report" / "index.html").read_text()
        words = {"balanced_accuracy": "Balanced accuracy", "macro_f1": "Macro F1", "log_loss": "Log loss"}[metric]
        assert f"{words}, 95% interval" in page and f"{words} on folds, 95% interval" in page
        assert "between seeds" in page
    # Back again, to the same.
    project.config.write_text(SWEPT)
    assert project.make("sweep").code == 0
    for name, found in before.items():
        assert result(project, "sweeps", name) == found


def test_the_area_under_the_curve_of_many_classes_needs_all_probabilities(tmp_path: Path) -> None:
    text = SMALL + '\n[sweeps.strength]\nhead = "logreg"\ngrid = { params = { C = [1e-5, 1.0] } }\n'
    text += '[sweeps.rates]\nhead = "small"\nstrategy = "halving"\ngrid = { learning_rate = [1e-4, 1e-3, 1e-2] }\n'
    project = Project(tmp_path).create(text)
    write_photos(project.photos, {"cat": 30, "dog": 30, "fox": 30})
    assert project.make("sweep").code == 0
    project.config.write_text(text + '[report]\nmetric = "auc"\n')
    outcome = project.make("sweep", "report")
    assert outcome.code == 0 and "known before" not in outcome.out, outcome.out
    for name in ("strength", "rates"):
        found = result(project, "sweeps", name)["winner"]
        head = result(project, "heads", name)["metrics"]["validation"]
        assert found["score"] == pytest.approx(head["auc"], abs=1e-3)
        assert found["score_interval"] == pytest.approx(head["auc_interval"], abs=1e-2)
    assert "sweeps: up to date" in project.headstart("sweep").out


def test_a_ledger_keeps_what_ranks_and_says_what_it_knows(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    plain = Score(0.9, 0.3, 10)
    f1 = Chosen("macro_f1", 0.8, 0.01, (0.7, 0.9))
    half = Record("half", (plain, plain._replace(chosen=f1)), True, 1.0)
    old, bad = Record("old", (plain,), True, 1.0), Record("bad", (), True, 1.0, "diverged")
    Ledger(path).add([half, old, bad])
    assert json.loads(path.read_text().splitlines()[1].partition(" ")[2])["scores"] == [[0.9, 0.3, 10, 0.0]]
    for metric, every, known in (
        ("accuracy", True, ["half", "old", "bad"]),
        ("log_loss", True, ["half", "old", "bad"]),
        ("macro_f1", False, ["half", "bad"]),
        ("macro_f1", True, ["bad"]),
        ("auc", False, ["bad"]),
    ):
        ledger = Ledger(path, metric, every)
        assert dict(ledger) == {"half": half, "old": old, "bad": bad}
        assert [key for key in ledger if ledger.complete(key)] == known, metric
        assert [key for key in ledger if ledger.covers(key, 1)] == known, metric
    assert plain.ranking("log_loss") < plain._replace(loss=0.4).ranking("log_loss")
    assert plain.by("log_loss") == Chosen("log_loss", 0.3, None) and not plain.has("log_loss")
    assert half.ranking("macro_f1") < old.ranking("macro_f1") < bad.ranking("macro_f1")
    assert Checkpoints(tmp_path / "none", "auc").epochs("half") == 0
