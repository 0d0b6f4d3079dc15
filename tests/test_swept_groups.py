"""The numbers that a sweep states with uncertainty count copies of an image once, and the images of a group as fewer."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SMALL, Project, result, write_photos

from cache.files import digest_text, seal, write_text
from cache.manifest import ImageRecord, Manifest
from stages.heads import rowwise
from stages.heads.calibration import log_softmax
from stages.heads.dataset import Dataset
from stages.heads.intervals import wilson
from stages.heads.metrics import scores
from stages.heads.scored import METRICS
from stages.sweeps.ledger import Ledger, Record
from stages.sweeps.measure import IN_FOLDS, Measure
from stages.sweeps.optimism import Corrected, corrected
from stages.sweeps.spec import SweepSpec
from stages.training.outcomes import Outcomes

CLASSES = tuple("abcdef")


def images(n: int, copies: int = 1, in_group: int = 0) -> Dataset:
    """``n`` contents, each several times; with groups of so many contents. Half are of train, half of validation."""
    rows = [(i, copy) for i in range(n) for copy in range(copies)]
    records = [
        ImageRecord(f"{i:04}-{copy}.png", digest_text(str(i)), CLASSES[i % 6], ("train", "validation")[i // 10 % 2])
        for i, copy in rows
    ]
    groups = tuple(f"group{i // in_group}" for i, _ in rows) if in_group else ()
    return Dataset(Manifest("photos", CLASSES, tuple(records), groups=groups), {})


def measure(data: Dataset, metric: str = "accuracy", **options: Any) -> Measure:
    return Measure.of(SweepSpec.model_validate({"head": "x", **options}), data, metric)


def said(y: np.ndarray, luck: np.ndarray, trials: int = 8, seed: int = 0) -> tuple[list[list[Outcomes]], np.ndarray]:
    """What equally good trials say, right or wrong together where ``luck`` (n,) is one number; and the last one's log-probabilities."""
    found = []
    for trial in range(trials):
        rng = np.random.default_rng([seed, trial])
        logits = rng.normal(0, 0.8, (luck.max() + 1, len(CLASSES)))[luck]
        logits[np.arange(len(y)), y] += (rng.random(luck.max() + 1) < 0.8)[luck] * 4.0
        logs = log_softmax(logits + rng.normal(0, 1e-3, logits.shape))
        found.append([Outcomes.of(y, logs, whole=True)])
    return found, logs


@pytest.mark.parametrize("options", [{}, {"cv": 3}], ids=["validation", "folds"])
@pytest.mark.parametrize("metric", sorted(METRICS))
def test_copies_change_no_number(metric: str, options: dict[str, Any]) -> None:
    """Five of each image: intervals are as wide as without them."""
    found = []
    for copies in (1, 5):
        of = measure(images(240, copies), metric, **options)
        outcomes, _ = said(of.labels, np.arange(len(of.labels)))
        score = of.with_interval(of.score(outcomes[0]), outcomes[0])
        best = score.by(metric)
        assert best is not None and best.value is not None and of.groups is None
        too_good = corrected(metric, outcomes, best.value, of.labels, of.n_classes, 0, of.groups)
        found.append((len(of.counted), score, score.interval, too_good))
    assert found[0] == found[1] and found[0][0] == (240 if options else 120)


@pytest.mark.parametrize("in_group", [0, 1, 5])
@pytest.mark.parametrize("metric", sorted(METRICS))
def test_intervals_are_those_of_heads(metric: str, in_group: int) -> None:
    """Of images in groups, which are right or wrong together, wider ones."""
    data = images(1200, copies=2, in_group=in_group)
    of = measure(data, metric)
    rows, grouped = data.distinct("validation"), in_group > 1
    luck = np.unique([int(data.records[i].path[:4]) // (in_group or 1) for i in rows], return_inverse=True)[1]
    (*_, last), logs = said(of.labels, luck)
    score = of.with_interval(of.score(last), last)
    assert data.groups is None or in_group
    assert (of.groups is not None) == grouped == (score.effect is not None)
    groups = None if data.groups is None else data.groups[rows]
    head = scores(of.labels, logs.astype(np.float32), CLASSES, True, groups)
    chosen = score.by(metric)
    assert chosen is not None and chosen.interval is not None
    assert score.interval == pytest.approx(head["accuracy_interval"])
    assert chosen.interval == pytest.approx(head[f"{metric}_interval"], rel=1e-4)
    alone = measure(images(1200), metric)
    other = alone.with_interval(alone.score(last), last).by(metric)
    assert other is not None and other.interval is not None
    ratio = np.ptp(chosen.interval) / np.ptp(other.interval)
    assert ratio > 1.7 if grouped else ratio == pytest.approx(1)


@pytest.mark.parametrize(("classes", "apart"), [(2, 2.5), (3, 3.2)])
def test_areas_of_groups_that_are_partly_alike_have_the_intervals_of_heads(classes: int, apart: float) -> None:
    """The effect of groups on the accuracy was taken for that on the area: of 400 intervals of trials 369 held the truth, of heads 380."""
    rng = np.random.default_rng(0)
    y, groups = np.repeat(rng.integers(0, classes, 80), 5), np.repeat(np.arange(80), 5)
    logits = np.sqrt(0.9) * np.repeat(rng.normal(size=(80, classes)), 5, axis=0)
    logits += np.sqrt(0.1) * rng.normal(size=(400, classes)) + apart * np.eye(classes)[y]
    logs = log_softmax(logits).astype(np.float32)
    of = Measure([(np.arange(0), np.arange(400))], y, classes, np.arange(400), "auc", groups)
    outcomes = [Outcomes.of(y, logs, whole=True)]
    chosen = of.with_interval(of.score(outcomes), outcomes).by("auc")
    head = scores(y, logs, CLASSES[:classes], True, groups)
    assert chosen is not None and chosen.interval == pytest.approx(head["auc_interval"], rel=1e-4)
    effect = head["design_effect"]
    by_accuracy = rowwise.interval("auc", y, outcomes[0], classes, effect)
    assert by_accuracy is not None and effect > 1 and np.ptp(chosen.interval) > 1.03 * np.ptp(by_accuracy)


def draws(metric: str, groups: int, size: int, seed: int, by_group: bool) -> tuple[Corrected | None, list[float]]:
    """The correction of a sweep over images of which ``size`` are right or wrong together."""
    y = np.random.default_rng(seed).integers(0, len(CLASSES), groups).repeat(size)
    which = np.arange(groups).repeat(size)
    outcomes, _ = said(y, which, seed=seed)
    of = Measure([(np.arange(0), np.arange(len(y)))], y, len(CLASSES), np.arange(len(y)), metric)
    values = [chosen.value for each in outcomes if (chosen := of.score(each).by(metric)) and chosen.value is not None]
    # The winner stands first.
    sign = -1 if METRICS[metric] == "low" else 1
    order = sorted(range(len(outcomes)), key=lambda i: -sign * values[i])
    found = corrected(
        metric,
        [outcomes[i] for i in order],
        values[order[0]],
        y,
        len(CLASSES),
        0,
        which if by_group else None,
    )
    return found, values


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_groups_are_drawn_whole(metric: str) -> None:
    """A group of five that are right or wrong together tells as much as one image of it."""
    whole, _ = draws(metric, 120, 5, 3, by_group=True)
    single, _ = draws(metric, 120, 1, 3, by_group=False)
    torn, _ = draws(metric, 120, 5, 3, by_group=False)
    assert whole and single and torn and whole.interval and torn.interval
    assert whole.value == pytest.approx(single.value, abs=2e-3)
    # Where images of one group are drawn and left out, the winner is scored on what chose it.
    assert whole.optimism > torn.optimism + 0.005
    assert np.ptp(whole.interval) > 1.5 * np.ptp(torn.interval)
    if single.interval:
        assert np.ptp(whole.interval) == pytest.approx(np.ptp(single.interval), rel=0.25)


def test_the_interval_of_what_groups_tell_holds_the_truth() -> None:
    """Of all of these trials, 0.8 and what guessing adds to it."""
    truth = float(np.mean([np.mean(draws("accuracy", 2000, 1, seed, by_group=False)[1]) for seed in range(100, 103)]))
    for groups in (8, 40):
        held = {True: 0, False: 0}
        for seed in range(30):
            for by_group in held:
                found, _ = draws("accuracy", groups, 10, seed, by_group)
                assert found and found.interval and 0 <= found.interval[0] <= found.value <= found.interval[1] <= 1
                held[by_group] += found.interval[0] <= truth <= found.interval[1]
        assert held[True] >= 28 and held[False] <= 24, (groups, held)


def test_one_group_tells_nothing_of_what_is_too_good() -> None:
    found, _ = draws("accuracy", 1, 50, 0, by_group=True)
    assert found is None


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


def test_a_sweep_counts_groups_also_where_an_earlier_version_trained_its_trials(tmp_path: Path) -> None:
    project = Project(tmp_path).create(GROUPED)
    write_photos(project.photos, {"cat": 60, "dog": 60})
    lines = [f"{name}/{name}{i}.png,{name}{i // 4}" for name in ("cat", "dog") for i in range(60)]
    (project.folder / "groups.csv").write_text("\n".join(["filename,group", *lines]) + "\n")
    assert project.make("sweep").code == 0
    found = {name: result(project, "sweeps", name) for name in ("strength", "halved")}
    rows = {}
    for name, each in found.items():
        assert each["parts"]["groups_count"] is True
        folder = project.artifacts / "sweeps" / name
        ledger = Ledger(folder / "trials.jsonl")
        last = ledger[each["winner"]["key"]].scores[-1]
        rows[name] = last.rows
        assert last.effect is not None and each["winner"]["accuracy_interval"] == list(last.interval)
        # As an earlier version left it: without groups in its intervals.
        (folder / "trials.jsonl").unlink()
        Ledger(folder / "trials.jsonl").add([as_before(record) for record in ledger.values()])
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
