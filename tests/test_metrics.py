"""Scores against scikit-learn's, calibration and paired tests."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax as scipy_log_softmax
from scipy.special import softmax
from sklearn.metrics import balanced_accuracy_score, log_loss, precision_recall_fscore_support, roc_auc_score

from stages.heads.calibration import cooled, log_probabilities, log_softmax, temperature
from stages.heads.intervals import paired_difference
from stages.heads.metrics import scores

CLASSES = ("a", "b", "c")


def p_of(first: np.ndarray, second: np.ndarray) -> float:
    return paired_difference(first, second).p


def drawn(n: int, seed: int, sharp: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels that were drawn from probabilities, and their logarithms, made sharper than they are."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, 3))
    y = np.array([rng.choice(3, p=p) for p in softmax(logits, axis=1)])
    return y, log_softmax(sharp * logits)


@settings(deadline=None, max_examples=40)
@given(n=st.integers(3, 80), seed=st.integers(0, 1000), sharp=st.sampled_from([0.3, 1.0, 4.0]))
def test_scores_are_those_of_scikit_learn(n: int, seed: int, sharp: float) -> None:
    y, p = drawn(n, seed, sharp)
    found = scores(y, p, CLASSES)
    predicted = p.argmax(axis=1)
    precision, recall, f1, support = precision_recall_fscore_support(y, predicted, labels=[0, 1, 2], zero_division=0.0)
    assert found["accuracy"] == pytest.approx((predicted == y).mean())
    assert found["balanced_accuracy"] == pytest.approx(recall[support > 0].mean())
    if len(set(y)) == 3:
        assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(y, predicted))
    assert found["log_loss"] == pytest.approx(log_loss(y, np.exp(p), labels=[0, 1, 2]), rel=1e-6)
    assert found["macro_f1"] == pytest.approx(f1[support > 0].mean())
    assert found["brier"] == pytest.approx(((np.exp(p) - np.eye(3)[y]) ** 2).sum(axis=1).mean())
    if len(set(y)) == 3:
        assert found["auc"] == pytest.approx(roc_auc_score(y, np.exp(p), multi_class="ovr"))
    for i, each in enumerate(found["per_class"].values()):
        expected = (precision[i], recall[i], f1[i], support[i])
        assert (each["precision"], each["recall"], each["f1"], each["support"]) == pytest.approx(expected)


def test_calibration_error_is_nothing_for_true_probabilities_and_much_for_sharpened_ones() -> None:
    y, p = drawn(20_000, 3)
    _, sharp = drawn(20_000, 3, sharp=4.0)
    assert scores(y, p, CLASSES)["ece"] < 0.01 < 0.15 < scores(y, sharp, CLASSES)["ece"]
    found = temperature(y, sharp)
    assert found == pytest.approx(4.0, rel=0.05)
    assert scores(y, cooled(sharp, found), CLASSES)["ece"] < 0.01


@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 50), seed=st.integers(0, 1000), sharp=st.sampled_from([0.2, 1.0, 8.0]))
def test_a_temperature_never_changes_a_label_nor_worsens_what_it_was_fitted_on(n: int, seed: int, sharp: float) -> None:
    y, p = drawn(n, seed, sharp)
    after = cooled(p, temperature(y, p))
    np.testing.assert_array_equal(after.argmax(axis=1), p.argmax(axis=1))
    assert scores(y, after, CLASSES)["log_loss"] <= scores(y, p, CLASSES)["log_loss"] + 1e-6


def test_where_every_row_is_right_the_temperature_stays_sensible() -> None:
    y = np.array([0, 1, 2] * 5)
    assert 0.05 < temperature(y, log_probabilities(np.eye(3)[y] * 0.7 + 0.1)) < 1


def test_a_head_that_is_sure_of_itself_beyond_float32_is_calibrated_by_its_logits() -> None:
    """As probabilities in float32 all its rows were 0 and 1, and one like the other."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (4000, 3))
    y = np.array([rng.choice(3, p=p) for p in softmax(logits, axis=1)])
    logs = log_softmax(60 * logits)
    found = temperature(y, logs)
    assert found == pytest.approx(60, rel=0.1)
    assert scores(y, cooled(logs, found), CLASSES)["ece"] < 0.03


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.floats(-800, 800), min_size=3, max_size=3), min_size=1, max_size=8))
def test_log_softmax_is_scipys_and_a_column_alone_is_that_of_two_classes(rows: list[list[float]]) -> None:
    z = np.array(rows)
    np.testing.assert_allclose(log_softmax(z), scipy_log_softmax(z, axis=1), rtol=1e-12, atol=1e-12)
    two = np.column_stack([np.zeros(len(z)), z[:, 0]])
    np.testing.assert_allclose(log_softmax(z[:, :1]), scipy_log_softmax(two, axis=1), rtol=1e-9, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_logarithms_of_probabilities_are_finite_and_in_their_order(values: list[float]) -> None:
    p = np.sort(np.array(values, np.float32))
    found = log_probabilities(np.column_stack([p, 1 - p]))
    assert np.isfinite(found).all() and (np.diff(found[:, 0]) >= 0).all()
    np.testing.assert_allclose(np.exp(found[:, 0]), p, atol=2e-7)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_symmetric_and_sees_only_where_two_heads_differ(pairs: list[tuple[bool, bool]]) -> None:
    one, two = (np.array(each) for each in zip(*pairs, strict=True))
    p = p_of(one, two)
    assert 0 < p <= 1 and p == pytest.approx(p_of(two, one))
    more = np.ones(30, bool)
    assert p_of(np.concatenate([one, more]), np.concatenate([two, more])) == pytest.approx(p)
    assert p_of(one, one) == 1


def test_mcnemar_by_hand() -> None:
    """One alone has 1 right, the other 9: 2 · (C(10,0) + C(10,1)) / 2¹⁰."""
    one = np.array([True] * 1 + [False] * 9)
    assert p_of(one, ~one) == pytest.approx(2 * 11 / 1024)
