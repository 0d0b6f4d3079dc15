"""The numbers that a sweep states with uncertainty count copies of an image once, and the images of a group as fewer."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cache.files import digest_text
from cache.manifest import ImageRecord, Manifest
from stages.heads import rowwise
from stages.heads.calibration import log_softmax
from stages.heads.dataset import Dataset
from stages.heads.metrics import scores
from stages.heads.scored import METRICS
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


@pytest.mark.parametrize("size", [1, 5])
def test_an_area_over_folds_has_an_interval_where_folds_are_large(size: int) -> None:
    """It compares probabilities of different heads: of small folds, the intervals held the truth in 70 to 94 of 100 cases."""
    for units in (199, 200):
        y = np.random.default_rng(0).integers(0, 6, units).repeat(size)
        n, groups = len(y), None if size == 1 else np.arange(units).repeat(size)
        folds = [(np.arange(0), np.arange(i, n, 5)) for i in range(5)]
        of = Measure(folds, y, 6, np.arange(n), "auc", groups)
        outcomes = said(y, np.arange(n))[0][0]
        score = of.with_interval(of.score(outcomes), outcomes)
        assert score.chosen and score.chosen.value and (score.chosen.interval is not None) == (units == 200)
        # Of an earlier version, which had one of any folds, and kept no outcomes.
        old = score._replace(effect=None, chosen=score.chosen._replace(interval=(0.8, 0.9)))
        left = of.by_groups(old).chosen
        assert left and left.interval == ((0.8, 0.9) if units == 200 else None)
        assert of.is_of(score._replace(chosen=old.chosen)) == (units == 200 and size == 1)
        other = replace(of, metric="macro_f1")
        score = other.with_interval(other.score(outcomes), outcomes)
        assert score.chosen and score.chosen.interval


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


@pytest.mark.parametrize("metric", sorted(METRICS))
@pytest.mark.parametrize("in_group", [0, 5])
def test_intervals_over_folds_are_wider_whatever_groups_do(metric: str, in_group: int) -> None:
    """By the root of the factor, of every score and of that of the winner."""
    of = measure(images(1200, in_group=in_group), metric, cv=3)
    # Of images that are their own group, in an order of chance; or right and wrong by groups in part.
    luck = np.arange(len(of.labels)) if of.groups is None else np.unique(of.groups, return_inverse=True)[1]
    outcomes, _ = said(of.labels, luck)
    alone = replace(of, folds=of.folds[:1])
    assert (of.shared, alone.shared) == (IN_FOLDS, 1.0)
    found = []
    for each in (of, alone):
        score = each.with_interval(each.score(outcomes[0]), outcomes[0])
        best = score.by(metric)
        assert best is not None and best.value is not None and best.interval is not None
        args = (each.labels, each.n_classes, 0, each.groups, each.shared)
        too_good = corrected(metric, outcomes, best.value, *args)
        assert too_good is not None and too_good.interval is not None
        found.append((score.effect or 1.0, np.ptp(score.interval), np.ptp(best.interval), np.ptp(too_good.interval)))
    ratios = [one / other for one, other in zip(*found, strict=True)]
    assert ratios[0] == pytest.approx(IN_FOLDS)
    assert ratios[1:] == pytest.approx([np.sqrt(IN_FOLDS)] * 3, rel=0.03)


@pytest.mark.parametrize("classes", [2, 3])
def test_areas_over_folds_are_known_as_badly_by_groups_of_their_own_effect(classes: int) -> None:
    """Where groups are more alike in how sure a head is than in whether it is right, as of one that is nearly always right."""
    rng = np.random.default_rng(0)
    y, groups = np.repeat(rng.integers(0, classes, 120), 5), np.repeat(np.arange(120), 5)
    logits = 1.3 * np.repeat(rng.normal(size=(120, classes)), 5, axis=0) + 0.1 * rng.normal(size=(600, classes))
    logits += 2.0 * np.eye(classes)[y]
    logs = log_softmax(logits)
    # Whether it is right is left to chance, which changes no probability.
    right = Outcomes.of(y, logs, whole=True)
    outcomes = [right._replace(predicted=np.where(rng.random(600) < 0.9, y, (y + 1) % classes).astype(np.uint16))]
    folds = [(np.arange(0), each) for each in np.array_split(np.arange(600), 3)]
    widths = []
    for held in (folds, [(np.arange(0), np.arange(600))]):
        of = Measure(held, y, classes, np.arange(600), "auc", groups)
        score = of.with_interval(of.score(outcomes), outcomes)
        assert score.chosen is not None and score.chosen.interval is not None and (score.effect or 0.0) < 2
        widths.append(np.ptp(score.chosen.interval))
    assert widths[0] / widths[1] == pytest.approx(np.sqrt(IN_FOLDS), rel=0.03)
