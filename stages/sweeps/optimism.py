"""By how much the score of a sweep's winner is too good, as it was chosen for it: the bootstrap bias correction of BBC-CV.

I. Tsamardinos, E. Greasidou, G. Borboudakis, "Bootstrapping the out-of-sample predictions for efficient and accurate
cross-validation", Machine Learning 107 (2018) 1895. Rows are drawn with replacement; the trial that is best on those drawn is scored on
those that were not, over all samples together. Nothing is trained again. Where rows belong to groups of like images, whole groups are
drawn.

The rows that are not drawn are fewer than there are, so scores on them vary more than one on all rows does, by what J. Shao and C. F. J.
Wu, "A general theory for jackknife variance estimation", Ann. Stat. 17 (1989) 1176, give for samples without so many of the rows. The
interval is made narrower by that; and for shares it is Wilson's at least, as no row that was seen may have been wrong. Of few groups, it
is as much wider as Student's t is, and Wilson's is that of as many images as tell as much without groups.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.heads.classwise import mean_there
from stages.heads.intervals import LEAST_OF_A_CLASS, LEAST_ROWS, Interval, design_effect, wider, wilson
from stages.heads.rowwise import told
from stages.heads.scored import METRICS
from stages.sweeps.resampled import Parts, log_loss, scorer
from stages.training.outcomes import Outcomes

RUNS, FEWEST_RUNS = 1000, 200
# Rows times trials times classes times runs, of scores that are no sums over rows: some ten seconds.
MOST_TERMS = 4e9
AT_ONCE = 100  # runs
# The share of rows that a sample of as many, with replacement, does not have.
LEFT = float(np.exp(-1))
# What rounding may make of equal scores.
EQUAL = 1e-9


class Corrected(NamedTuple):
    """The winner's score, freed of its ``optimism``, with its 95% interval, None where too few images tell; optimism is positive
    where the plain score is too good, be it too high or, of a loss, too low.
    """

    optimism: float
    value: float
    interval: Interval | None


def corrected(
    metric: str,
    trials: Sequence[Sequence[Outcomes]],
    plain: float,
    y: NDArray[np.int64],
    n_classes: int,
    seed: int,
    groups: NDArray[np.int64] | None = None,
    shared: float = 1.0,
) -> Corrected | None:
    """The score of the best of ``trials``, whose ``plain`` score is known: of each its outcomes on rows with labels ``y`` (n,), for each
    of its seeds. The best one is the first. ``groups`` (n,) are those of like rows. ``shared`` is by how much heads of several folds raise
    the variance of a score, as they share training rows. None where nothing was chosen, or where the outcomes do not tell.
    """
    drawing = Drawing.of_rows(len(y), groups)
    n = len(y)
    if (
        len(trials) < 2
        or drawing.units < 2
        or not all(told(metric, each, n_classes) for trial in trials for each in trial)
    ):
        return None
    sums = metric in ("accuracy", "log_loss", "top5_accuracy", "balanced_accuracy")
    scores, loss = scorer(metric, trials, y, n_classes), log_loss(trials)
    terms = n * sum(map(len, trials)) * n_classes
    runs = RUNS if sums else int(np.clip(MOST_TERMS / terms, FEWEST_RUNS, RUNS))
    sign = -1.0 if METRICS[metric] == "low" else 1.0
    rng = np.random.default_rng([seed, drawing.units])
    found = []
    for start in range(0, runs, AT_ONCE):
        drawn = drawing.draw(min(AT_ONCE, runs - start), rng)
        score = np.nan_to_num(sign * scores.every(drawn), nan=-np.inf)
        # Ties by the log loss, as the sweep has it.
        tied = score >= score.max(axis=1, keepdims=True) - EQUAL
        chosen = np.where(tied, loss.every(drawn), np.inf).argmin(axis=1)
        for trial in np.unique(chosen):
            left = (drawn[chosen == trial] == 0).astype(np.float64)
            found.append(scores.parts(left, int(trial)))
    parts = Parts(*(np.concatenate(each) for each in zip(*found, strict=True)))
    if not parts.there.any():
        return None
    # Not the mean over samples: many lack rare classes, which trials may be better or worse at than at others.
    value = float(mean_there(parts.together))
    alike = float(np.mean([design_effect(each.predicted == y, groups) for each in trials[0]]))
    return Corrected(
        sign * (plain - value),
        value,
        _interval(metric, value, _of_each(parts), y, shared * alike, shared * drawing.wider),
    )


def _of_each(parts: Parts) -> NDArray[np.float64]:
    """The score of each sample that has one. For a class that it lacks, that of all samples together stands in."""
    values = mean_there(np.where(parts.there, parts.ratios, parts.together))
    return values[parts.there.any(axis=1)]


class Drawing(NamedTuple):
    """What is drawn with replacement: so many ``units``, each row itself, or the group ``of`` each row (n,)."""

    units: int
    of: NDArray[np.intp] | None = None

    @classmethod
    def of_rows(cls, n: int, groups: NDArray[np.int64] | None) -> "Drawing":
        if groups is None:
            return cls(n)
        names, of = np.unique(groups, return_inverse=True)
        return cls(len(names), of)

    def draw(self, runs: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """How often each row is drawn (runs, n)."""
        places = rng.integers(0, self.units, (runs, self.units)) + self.units * np.arange(runs)[:, None]
        times = np.bincount(places.ravel(), minlength=runs * self.units).reshape(runs, self.units).astype(np.float64)
        return times if self.of is None else times[:, self.of]

    @property
    def wider(self) -> float:
        """By how much more variance an interval must allow for than that of samples, where these are of few groups."""
        return 1.0 if self.of is None else wider(self.units) * self.units / (self.units - 1)


def _interval(
    metric: str, value: float, values: NDArray[np.float64], y: NDArray[np.int64], alike: float, wide: float
) -> Interval | None:
    """The middle 95% of the ``values`` that samples gave, as narrow as scores on all rows would lie, and as ``wide`` as few groups ask
    for. ``alike`` is the design effect of groups.
    """
    n, counts = len(y) / alike, np.bincount(y)
    of_classes = metric in ("auc", "balanced_accuracy", "macro_f1") and counts[counts > 0].min() < LEAST_OF_A_CLASS
    if of_classes or (metric == "log_loss" and n < LEAST_ROWS):
        return None
    ends = value + np.sqrt(wide * LEFT / (1 - LEFT)) * (np.quantile(values, [0.025, 0.975]) - values.mean())
    low, high = float(ends[0]), float(ends[1])
    if metric == "log_loss":
        return max(0.0, low), high
    least = wilson(value * n, n)
    return max(0.0, min(low, least[0])), min(1.0, max(high, least[1]))
