"""Intervals against what they promise: sane at the edges, and true about nineteen times in twenty (more in bench/coverage.py)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_metrics import drawn

from bench.simulated import of_chosen
from cache.errors import HeadError
from stages.heads.abstention import Confident, effective, selective, threshold_for
from stages.heads.areas import area_under_curve
from stages.heads.calibration import calibration_error, expected_calibration_error, log_softmax
from stages.heads.intervals import design_effect, f1_interval, holm, paired_difference, wilson
from stages.heads.means import mean_interval
from stages.heads.metrics import scores


def sure(right: list[bool], classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Labels in turn, and log-probabilities of a head that has these of them right."""
    y = np.arange(len(right)) % classes
    said = np.where(right, y, (y + 1) % classes)
    return y, np.log(np.full((len(y), classes), 0.05) + 0.9 * np.eye(classes)[said])


@pytest.mark.parametrize("right", [[True] * 20, [False] * 20, [True] * 19 + [False]])
def test_at_the_edges_no_interval_is_a_point_or_everything(right: list[bool]) -> None:
    """The bootstrap gave [1, 1] where all were right, and [0, 1] for the F1 of a class with few images."""
    y, logs = sure(right)
    found = scores(y, logs, ("a", "b"), intervals=True)
    intervals = [found[name] for name in found if name.endswith("_interval") and found[name] is not None]
    intervals += [each[name] for each in found["per_class"].values() for name in each if name.endswith("_interval")]
    for low, high in intervals:
        assert 0 <= low < high <= 1 and 0.05 < high - low < 0.75, found


def test_where_too_few_images_tell_there_is_no_interval() -> None:
    found = scores(*sure([True] * 18 + [False] * 2, 10), tuple("abcdefghij"), intervals=True)
    assert found["balanced_accuracy_interval"] is None and found["macro_f1_interval"] is None
    assert found["log_loss_interval"] is None and found["calibration_error_interval"] is None


def test_the_calibration_error_is_debiased_and_its_interval_holds_the_truth() -> None:
    """The plain error's interval never did: for true probabilities it is above 0 by chance alone."""
    held = {1.0: 0, 3.0: 0}
    for sharp in held:
        many, logs = drawn(200_000, 1, sharp)
        p = np.exp(logs)
        truth = calibration_error(p.max(axis=1), p.argmax(axis=1) == many, intervals=False).value
        for seed in range(60):
            y, logs = drawn(250, 1000 + seed, sharp)
            p = np.exp(logs)
            low, high = calibration_error(p.max(axis=1), p.argmax(axis=1) == y).interval or (1.0, 0.0)
            held[sharp] += low <= truth <= high
    assert all(count >= 53 for count in held.values()), held


def easy(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of two classes, and the log-probabilities of a head that is right for 98 of 100 images and knows how sure it may be."""
    rng = np.random.default_rng(seed)
    y, x = rng.integers(0, 2, n), rng.normal(size=(n, 2))
    x[np.arange(n), y] += 3
    return y, log_softmax(3 * x)


def test_intervals_of_a_head_that_is_hardly_ever_wrong_hold_the_truth_and_are_narrow() -> None:
    """Of 100 images, one or two carry the mean loss: 85 to 90 of 100 intervals held the truth, and all of the areas under the curve,
    which were twice as wide as they need be.
    """
    truth = scores(*easy(300_000, 1), ("a", "b"))
    found = [scores(*easy(100, seed), ("a", "b"), intervals=True) for seed in range(2, 152)]
    for name, wide in (("log_loss", 0.2), ("brier", 0.1), ("calibration_error", 0.2), ("auc", 0.03)):
        ends = np.array([each[f"{name}_interval"] for each in found])
        held = (ends[:, 0] <= truth[name]) & (truth[name] <= ends[:, 1])
        assert held.sum() >= 141 and (ends[:, 1] - ends[:, 0]).mean() < wide, (name, held.sum())


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 4000), min_size=100, max_size=140),
    st.floats(0, 40),
    st.floats(1, 1.4),
    st.sampled_from([1, 1e3]),
)
def test_the_interval_of_a_mean_holds_it_and_goes_with_its_unit(
    hundredths: list[int], largest: float, effect: float, unit: float
) -> None:
    losses = np.array(hundredths) / 100
    found = mean_interval(losses, largest, effect)
    if len(losses) / effect < 100:
        assert found is None
        return
    assert found is not None and 0 <= found[0] <= losses.mean() <= found[1]
    assert mean_interval(unit * losses, unit * largest, effect) == pytest.approx(
        [unit * each for each in found], rel=1e-6
    )


def test_of_shares_the_interval_of_a_mean_is_that_of_rare_events() -> None:
    """Nothing of 1,000 has at most 3.69 ÷ 1,000 (Poisson's limit), and 500 of 1,000 have the ends of a normal distribution."""
    assert mean_interval(np.zeros(1000), 1.0) == pytest.approx((0, 0.00369), rel=2e-3)
    low, high = mean_interval(np.arange(1000) % 2, 1.0) or (0, 0)
    assert (low, high) == pytest.approx((0.469, 0.531), abs=1e-3)


def test_what_chance_alone_gives_is_what_true_probabilities_come_out_at() -> None:
    found = []
    for seed in range(40):
        y, logs = drawn(300, seed)
        p = np.exp(logs)
        found.append(expected_calibration_error(p.max(axis=1), p.argmax(axis=1) == y))
    ece, by_chance = np.mean(found, axis=0)
    assert ece == pytest.approx(by_chance, rel=0.15)


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 400), share=st.floats(0, 1))
def test_wilson_holds_the_share_and_narrows_with_n(n: int, share: float) -> None:
    k = round(n * share)
    low, high = wilson(k, n)
    assert 0 <= low <= k / n <= high <= 1
    narrow = wilson(4 * k, 4 * n)
    assert narrow[1] - narrow[0] < high - low
    assert wilson(n - k, n) == pytest.approx((1 - high, 1 - low))


def test_wilson_by_hand() -> None:
    """81 of 263 is the example of Newcombe, Stat. Med. 17 (1998) 857; nothing of 10 has the end 0.2775."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 10) == pytest.approx((0, 0.2775), abs=5e-5)


def test_f1_is_a_share_of_the_union() -> None:
    low, high = f1_interval(8, 10)
    assert low < 2 * 0.8 / 1.8 < high
    assert f1_interval(10, 10)[1] == 1 and f1_interval(10, 10)[0] > 0.8


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=80))
def test_a_difference_is_antisymmetric_and_agrees_with_its_interval(pairs: list[tuple[bool, bool]]) -> None:
    one, two = (np.array(each) for each in zip(*pairs, strict=True))
    found, back = paired_difference(one, two), paired_difference(two, one)
    assert found.value == pytest.approx(one.mean() - two.mean()) == pytest.approx(-back.value)
    assert found.interval == pytest.approx((-back.interval[1], -back.interval[0]))
    assert found.interval[0] < found.interval[1]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_never_lowers(p: list[float]) -> None:
    found = holm(p)
    assert all(after >= before for after, before in zip(found, p, strict=True)) and max(found) <= 1
    assert min(found) == pytest.approx(min(1, len(p) * min(p)))
    assert [found[i] for i in sorted(range(len(p)), key=lambda i: p[i])] == sorted(found)


def test_groups_count_as_one_where_their_images_are_alike() -> None:
    rng = np.random.default_rng(0)
    alike = np.repeat(rng.random(100) < 0.8, 5)
    groups = np.repeat(np.arange(100), 5)
    assert design_effect(alike, groups) == pytest.approx(5, rel=0.08)
    assert design_effect(rng.random(500) < 0.8, groups) < 1.5
    assert design_effect(np.ones(500, bool), groups) == design_effect(np.arange(500) > 0, groups) == 5
    assert design_effect(alike, np.arange(500)) == 1
    y, logs = sure(list(alike))
    wide = scores(y, logs, ("a", "b"), True, groups)["accuracy_interval"]
    narrow = scores(y, logs, ("a", "b"), True)["accuracy_interval"]
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])


def test_areas_of_groups_that_are_hardly_ever_wrong_hold_the_truth() -> None:
    """The effect of groups on the accuracy was taken for that on the area: of 200 intervals, 178 held the truth."""
    rng, held = np.random.default_rng(0), 0
    many, groups = rng.normal([[0], [3]], size=(2, 4_000)), np.repeat(np.arange(80), 5)
    truth = (many[0][:, None] < many[1][None]).mean()
    for _ in range(200):
        y = np.repeat(rng.integers(0, 2, 80), 5)
        x = np.repeat(rng.normal(size=80), 5) * np.sqrt(0.9) + rng.normal(size=400) * np.sqrt(0.1) + 3 * y
        p = 1 / (1 + np.exp(-x))
        found = area_under_curve(y, np.stack([1 - p, p], axis=1), design_effect((p > 0.82) == y, groups), groups)
        assert found is not None and found.interval is not None
        held += found.interval[0] <= truth <= found.interval[1]
    assert held >= 186, held


def test_abstention_reaches_the_accuracy_that_was_asked_for() -> None:
    """In 95 of 100 cases: with true probabilities from 0.5 to 1, answers from t on have an accuracy of (1 + t) / 2."""
    rng = np.random.default_rng(0)
    missed = []
    for _ in range(200):
        confidence = rng.uniform(0.5, 1, 1000)
        right = rng.random(1000) < confidence
        found = selective(
            {"validation": Confident(confidence[:500], right[:500]), "test": Confident(confidence[500:], right[500:])}
        )
        try:
            threshold = threshold_for(found, 0.9)
        except HeadError:
            continue
        missed.append((1 + threshold) / 2 < 0.9)
        answered = confidence[500:] >= threshold
        assert [answered.sum(), right[500:][answered].sum()] == found["test"][found["thresholds"].index(threshold)]
    assert len(missed) > 100 and np.mean(missed) < 0.08


def test_abstention_keeps_its_promise_for_the_best_of_many_heads() -> None:
    """The head that chance favours most among 30 equally good ones broke it in three times as many cases as one that was not chosen."""
    broken = {}
    for told, held in of_chosen(30, 300, 200, np.random.default_rng(0)).items():
        there = [each[0] for each in held if each]
        broken[told] = 1 - np.mean(there)
    assert broken["at least 0.9, not allowed for"] > 0.1
    assert broken["at least 0.9"] < 0.05, broken


def test_what_a_head_shows_is_less_where_it_was_chosen_among_many() -> None:
    found = selective({"validation": Confident(np.linspace(0.6, 0.9, 60), np.ones(60, bool))})
    assert threshold_for(found, 0.94) == pytest.approx(0.6, abs=0.06)
    with pytest.raises(HeadError, match="0.899 at most for this head, which they chose among 30; ask for less"):
        threshold_for(found, 0.94, 30)


@pytest.mark.parametrize("alike", [1.0, 0.7])
def test_abstention_counts_groups_of_like_images_as_fewer(alike: float) -> None:
    """Image by image, a fifth of the thresholds gave less than was asked for where five images are right or wrong together."""
    rng = np.random.default_rng(0)
    groups, missed = np.repeat(np.arange(200), 5), []
    for _ in range(150):
        confidence = np.repeat(rng.uniform(0.5, 1, 200), 5)
        luck = np.where(rng.random(1000) < alike, np.repeat(rng.random(200), 5), rng.random(1000))
        found = selective({"validation": Confident(confidence, luck < confidence, groups)})
        try:
            missed.append((1 + threshold_for(found, 0.85)) / 2 < 0.85)
        except HeadError:
            continue
    assert len(missed) > 60 and np.mean(missed) < 0.08, (len(missed), np.mean(missed))


def test_a_group_without_a_mistake_is_one_image() -> None:
    found = selective(
        {"validation": Confident(np.linspace(0.6, 0.9, 60), np.ones(60, bool), np.repeat(np.arange(6), 10))}
    )
    assert effective(found, "validation", 0) == (6, 6)
    with pytest.raises(HeadError, match="60 validation images in 6 groups can show, which is 0.607 at most"):
        threshold_for(found, 0.8)


def test_few_validation_images_cannot_promise_much() -> None:
    found = selective({"validation": Confident(np.linspace(0.6, 0.9, 20), np.ones(20, bool))})
    assert threshold_for(found, 0.85) == pytest.approx(0.6)
    with pytest.raises(HeadError, match="20 validation images can show, which is 0.861 at most"):
        threshold_for(found, 0.95)


def test_two_heads_are_told_apart_by_groups_where_these_are_alike() -> None:
    """Image by image, half of all pairs of equally good heads were told apart."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 10)
    told, held = 0, 0
    for _ in range(100):
        one, two = (np.repeat(rng.random(60) < 0.8, 10) for _ in range(2))
        found = paired_difference(one, two, groups)
        told += found.p < 0.05
        held += found.interval[0] <= 0 <= found.interval[1]
    assert told <= 10 and held >= 90


def test_a_difference_between_few_groups_is_as_uncertain_as_that_between_as_many_images() -> None:
    """Where the groups did not differ at all, or in a few cases, the interval was that of single images, or worse."""
    rng = np.random.default_rng(0)
    groups, held = np.repeat(np.arange(20), 5), 0
    for _ in range(200):
        one = rng.random(20) < 0.9
        two = one & (rng.random(20) >= 0.05)
        low, high = paired_difference(one.repeat(5), two.repeat(5), groups).interval
        held += low <= 0.045 <= high
    assert held >= 190
    equal = np.ones(100, bool)
    assert paired_difference(equal, equal, groups).interval == paired_difference(equal[:20], equal[:20]).interval


def test_one_who_knows_one_class_alone_does_not_know_five() -> None:
    """Classes that were as probable as the true one did not count, so that trees had an accuracy of 100% among five."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 20, 400)
    guesses = np.log(np.full((400, 20), 1e-7) + np.eye(20)[rng.integers(0, 20, 400)])
    found = scores(y, guesses, tuple(map(str, range(20))))
    assert found["top5_accuracy"] == pytest.approx(found["accuracy"])
