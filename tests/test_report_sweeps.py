"""The report of a project with heads of every kind, on several layers, refitted, and swept; and the effects of parameters."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import CONFIG, Project, write_photos
from pages import Seen, see

from pipeline.commands.report import report_data
from pipeline.config.load import load_config
from pipeline.targets.graph import load_graph
from stages.heads.spec import SklearnSpec
from stages.report.render import write_report
from stages.sweeps.ledger import Record, Score
from stages.sweeps.spec import SweepSpec
from stages.sweeps.trials import Trial, effects

EVERYTHING = (
    CONFIG.replace('name = "VGG16"', 'name = "VGG16"\nlayers = ["block4_pool", "block5_pool"]')
    .replace(
        'estimator = "LogisticRegression"', 'estimator = "LogisticRegression"\nlayers = ["block4_pool"]\nrefit = true'
    )
    .replace(
        "[heads.ridge]",
        '[heads.plain]\nkind = "sklearn"\nestimator = "LogisticRegression"\nlayers = ["block4_pool", "block5_pool"]\n\n[heads.ridge]',
    )
    + """
[heads.own]
kind = "keras"
layers = ["block5_pool"]
build = "my_heads.py:build"
optimizer = "adam"
learning_rate = 1e-3
epochs = 3

[heads.small]
kind = "dense"
pool = "avg"
units = [8]
epochs = 2

[sweeps.care]
head = "small"
cv = 3
repeats = 2

[sweeps.seeds]
head = "small"
repeats = 2
grid = { learning_rate = [1e-2, 1e-3] }

[sweeps.wild]
head = "small"
grid = { optimizer = ["sgd"], learning_rate = [1e30, 1e-2] }

[sweeps.drawn]
head = "plain"
strategy = "random"
trials = 6
grid = { params = { C = { low = 1e-4, high = 1.0, log = true } } }
"""
)
OWN = """
import keras

def build(shape, classes):
    return [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(64, activation="relu")]
"""


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("everything") / "project").create(EVERYTHING)
    (project.folder / "my_heads.py").write_text(OWN)
    write_photos(project.photos, {"cat": 30, "dog": 30})
    outcome = project.make("features", "heads", "sweep", "report")
    assert outcome.code == 0 and outcome.reported, outcome.out
    return project


@pytest.fixture(scope="module")
def seen(everything: Project) -> Seen:
    return see(everything.artifacts / "report" / "index.html")


def part(text: str, start: str, end: str) -> str:
    """From the first ``start`` to the next ``end``."""
    found = text[text.index(start) :]
    return found[: found.index(end)]


def test_heads_are_told_apart_by_what_they_are(seen: Seen) -> None:
    assert "LogisticRegression() · averaged features of block4_pool · refitted" in seen.text
    assert "LogisticRegression() · averaged features of block4_pool + block5_pool" in seen.text
    # 512 features → 64 → one probability.
    assert "my_heads.py:build, 32,897 parameters · adam 0.001 · features of block5_pool" in seen.text
    assert "no hidden layer" not in seen.text


def test_refitted_heads_are_explained(everything: Project, seen: Seen, tmp_path: Path) -> None:
    assert "their validation scores are of the head before that, their test scores of the head after it" in seen.text
    assert "refitted heads are then fitted on them, too" in seen.text
    data = report_data(load_graph(load_config(everything.config)))
    heads = [head for head in data.heads if head.name == "logreg"]
    write_report(tmp_path / "best.html", replace(data, heads=heads))
    alone = see(tmp_path / "best.html").text
    assert "the head after it was refitted" in alone and "It is of the head before it was refitted." in alone
    heads = [head for head in data.heads if head.name in ("ridge", "small")]
    write_report(tmp_path / "others.html", replace(data, heads=heads, sweeps=[]))
    assert "refit" not in see(tmp_path / "others.html").text
    assert "averaged features of" not in see(tmp_path / "others.html").text


def test_every_head_with_epochs_has_curves(seen: Seen) -> None:
    labels = [attrs["aria-label"] or "" for tag, attrs in seen.tags if tag == "svg"]
    drawn = {label.split(",")[0] for label in labels if " by epoch, " in label}
    assert drawn == {"own", "small", "care", "seeds", "wild"}


def test_a_sweep_says_what_its_trials_were_scored_on(seen: Seen) -> None:
    care = part(seen.text, "care 1 trial", "seeds 2 trials")
    assert "It was scored on 3 folds of train and validation , each with 2 seeds." in care
    assert "Its accuracy there is another: that of one head, trained on train alone," in care
    seeds = part(seen.text, "seeds 2 trials", "wild 2 trials")
    assert "They were scored on validation , each with 2 seeds." in seeds and "here it is the mean of 2." in seeds
    assert "Its accuracy there is another" not in part(seen.text, "wild 2 trials", "Best head")


def test_trials_that_came_to_nothing_are_listed(everything: Project, seen: Seen, tmp_path: Path) -> None:
    wild = part(seen.text, "wild 2 trials", "drawn 6 trials")
    assert "2 trials, 1 of them trained to the end, by grid" in wild
    # In ascending order, and the rate that diverged is there.
    assert re.search(r"learning_rate 0\.01 1 \d+\.\d% \d+\.\d% 1e\+30 0 – –", wild)
    data = report_data(load_graph(load_config(everything.config)))
    (sweep,) = (each for each in data.sweeps if each["sweep"] == "wild")
    failures = [{"params": {"learning_rate": 10.0**i}, "problem": f"<diverged> {i}"} for i in range(30, 38)]
    write_report(tmp_path / "index.html", replace(data, sweeps=[sweep | {"failures": failures}]))
    text = see(tmp_path / "index.html").text
    assert "8 trials came to nothing; the first of them: learning_rate 1e+30: <diverged> 30" in text
    assert "<diverged> 34" in text and "<diverged> 35" not in text


def test_effects_of_a_range_are_in_four_parts(seen: Seen) -> None:
    drawn = part(seen.text, "drawn 6 trials", "Best head")
    rows = re.findall(r"(0\.\d+) to ([01][.\d]*) (\d)(?= )", drawn)
    assert [row[:2] for row in rows] == [("0.0001", "0.001"), ("0.001", "0.01"), ("0.01", "0.1"), ("0.1", "1")]
    assert sum(int(row[2]) for row in rows) == 6


def told(
    grid: dict[str, Any], *trials: tuple[Mapping[str, Any], float | None]
) -> dict[str, list[tuple[str, int, Any, Any]]]:
    """Effects as (value, trials, mean, best); a trial without an accuracy failed."""
    spec = SklearnSpec(kind="sklearn", estimator="LogisticRegression")
    ranked = [
        (
            Trial(params, "main", ("x",), spec, str(i)),
            Record(str(i), (Score(accuracy or 0.0, 1.0, 10),), True, 0.1, "" if accuracy is not None else "diverged"),
        )
        for i, (params, accuracy) in enumerate(trials)
    ]
    checked = SweepSpec.model_validate({"head": "x", "strategy": "random", "trials": 9, "grid": grid}).grid
    return {name: [tuple(row.values()) for row in rows] for name, rows in effects(ranked, checked).items()}


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([10, 9, 1e-3, 10], ["0.001", "9", "10"]),
        (["b", "a"], ['"b"', '"a"']),
        ([True, False], ["true", "false"]),
        ([[8], []], ["[8]", "[]"]),
        (list(range(14, 0, -1)), ["1 to 3", "4 to 7", "8 to 10", "11 to 14"]),
        ({"low": 0.0, "high": 2.0}, ["0 to 0.5", "0.5 to 1", "1 to 1.5", "1.5 to 2"]),
        ({"low": 8, "high": 64}, ["8 to 21", "22 to 35", "36 to 49", "50 to 64"]),
        ({"low": -1, "high": 1}, ["-1", "0", "1"]),
        ({"low": 1, "high": 15, "log": True}, ["1", "2 to 3", "4 to 7", "8 to 15"]),
    ],
)
def test_values_stand_in_order_even_where_no_trial_came_to_anything(values: Any, labels: list[str]) -> None:
    assert told({"x": values}) == {"x": [(label, 0, None, None) for label in labels]}
    first = values["low"] if isinstance(values, dict) else values[0]
    last = values["high"] if isinstance(values, dict) else values[-1]
    both = told({"x": values}, ({"x": first}, 0.5), ({"x": last}, 1.0), ({"x": first}, None))["x"]
    assert [row[0] for row in both] == labels and sum(row[1] for row in both) == 2
    if isinstance(values, dict):
        assert both[0] == (labels[0], 1, 0.5, 0.5) and both[-1] == (labels[-1], 1, 1.0, 1.0)


def test_one_trial_has_its_effect() -> None:
    assert told({"C": {"low": 1.0, "high": 5.0}, "k": [3]}, ({"C": 2.5, "k": 3}, 0.75)) == {
        "C": [("1 to 2", 0, None, None), ("2 to 3", 1, 0.75, 0.75), ("3 to 4", 0, None, None), ("4 to 5", 0, None, None)],
        "k": [("3", 1, 0.75, 0.75)],
    }  # fmt: skip
