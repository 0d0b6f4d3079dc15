"""Ensembles without a project: what cannot be configured, and the weights that validation chooses."""

from collections.abc import Callable

import numpy as np
import pytest
from conftest import Project
from ensembles import CONFIG

from stages.heads.ensemble import best_weights, too_good


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"small", "logreg@a"', '"smal", "logreg@a"', "[heads.mix] heads: no head 'smal' (did you mean 'small'?)"),
        ('"small", "logreg@a"', '"logreg", "logreg@a"', "[heads.mix] heads: no head 'logreg' (did you mean 'logreg@"),
        ('"small", "logreg@a"', '"mix", "logreg@a"', "[heads.mix] heads: 'mix' is an ensemble itself; name its heads"),
        ('["logreg@a", "ridge"]', '["mix", "ridge"]', "[heads.weighted] heads: 'mix' is an ensemble itself; name its heads"),
        ('["logreg@a", "ridge"]', '["ridge"]', "[heads.weighted] heads: expected two at least, found one"),
        ('["logreg@a", "ridge"]', "[]", "[heads.weighted] heads: expected two at least, found none"),
        ('["logreg@a", "ridge"]', '["ridge", "ridge"]', "expected each once"),
        ('sweep = "width"', 'sweep = "widht"', "[heads.best] sweep: no sweep 'widht' (did you mean 'width'?)"),
        ('sweep = "width"', 'sweep = "small"', "[heads.best] sweep: no sweep 'small'"),
        ("best = 2", "best = 11", "[heads.best] best: "),
        ("best = 2", 'best = 2\nheads = ["small", "ridge"]', 'expected heads = ["NAME", …] or sweep = "NAME", found both'),
        ('weights = "validation"', "best = 3", "[heads.weighted] best: only the trials of a sweep"),
        ('weights = "validation"', 'weights = "validatoin"', "(did you mean 'validation'?)"),
        ('weights = "validation"', 'base = "a"', "[heads.weighted] base: an ensemble has no such field, its heads have"),
        ('head = "small"\n', 'head = "mix"\n', "[sweeps.width] head: 'mix' is an ensemble"),
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_be_is_one_line(
    empty: Callable[[str], Project], old: str, new: str, says: str
) -> None:
    assert old in CONFIG
    outcome = empty(CONFIG.replace(old, new)).headstart("status")
    assert outcome.code == 1 and len(outcome.out.splitlines()) == 1 and says in outcome.out, outcome.out


def test_weights_have_the_lowest_log_loss_that_there_is() -> None:
    rng = np.random.default_rng(0)
    good, bad = rng.uniform(0.3, 0.99, (2, 400))
    of_true = np.stack([good, bad, 0.8 * bad])
    weights = best_weights(of_true)
    loss = -np.log(weights @ of_true).mean()
    assert weights.sum() == pytest.approx(1) and weights.min() >= 0
    assert weights[2] == 0  # it is never better than the second
    grid = np.linspace(0, 1, 201)
    lowest = min(-np.log(w * good + (1 - w) * bad).mean() for w in grid)
    assert loss <= lowest + 1e-6
    assert loss < -np.log(of_true.mean(axis=0)).mean()
    assert best_weights(np.zeros((2, 5))).sum() == pytest.approx(1)  # where all are wrong, it is any of them


def test_cross_fitting_finds_weights_too_good_where_heads_are_many_and_images_few() -> None:
    rng = np.random.default_rng(1)
    few, many = rng.uniform(0.05, 0.95, (8, 30)), rng.uniform(0.05, 0.95, (8, 3000))
    assert too_good(few, np.arange(30)) > 3 * too_good(many, np.arange(3000)) > 0
    assert too_good(few, np.zeros(30, np.int64)) >= 0  # all of one group
