"""The scores that may rank trials, on many weighted samples of the same rows at once."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from stages.heads.classwise import Floats, among_top, balanced_accuracy, divided, mean_there
from stages.heads.rowwise import losses, probabilities
from stages.training.outcomes import Outcomes

# Of each trial, its outcomes for each seed.
Trials = Sequence[Sequence[Outcomes]]


class Parts(NamedTuple):
    """What a score is the mean of: each class, or all rows as one. A part is ``above`` ÷ ``below`` (runs, parts), which are sums over rows,
    or over pairs of them, that can be added over samples; not all samples have it ``there``.
    """

    above: Floats
    below: Floats
    there: NDArray[np.bool_]

    @property
    def ratios(self) -> Floats:
        """Each part of each sample (runs, parts); NaN where it has none."""
        return np.where(self.there, divided(self.above, self.below), np.nan)

    @property
    def together(self) -> Floats:
        """Each part (parts,) of all samples together; NaN where none has it."""
        return np.where(self.there.any(axis=0), divided(self.above.sum(axis=0), self.below.sum(axis=0)), np.nan)


class Scorer(Protocol):
    """Scores of T trials, means over their seeds; NaN where a sample has none."""

    def every(self, weights: Floats) -> Floats:
        """Of all trials (runs, T), for the ``weights`` (runs, n) of rows."""

    def parts(self, weights: Floats, trial: int) -> Parts:
        """Of one of them, what its score is the mean of; of several seeds, the sums are means."""


def scorer(metric: str, trials: Trials, y: NDArray[np.int64], n_classes: int) -> Scorer:
    """Of a score of ``stages.heads.scored.METRICS``, on rows with labels ``y`` (n,)."""
    if metric == "log_loss":
        return log_loss(trials)
    if metric == "top5_accuracy":
        return _Mean(_by_row(trials, lambda each: among_top(each.rank)))
    if metric == "macro_f1":
        return _MacroF1(trials, y, n_classes)
    if metric == "auc":
        return _Area(trials, y)
    right = _by_row(trials, lambda each: each.predicted == y)
    return _Mean(right) if metric == "accuracy" else _BalancedAccuracy(right, y)


def log_loss(trials: Trials) -> Scorer:
    """Of the log loss."""
    return _Mean(_by_row(trials, losses))


def _by_row(trials: Trials, value: Callable[[Outcomes], NDArray[Any]]) -> Floats:
    """A value of each row and trial (n, T), the mean over seeds."""
    columns = [np.mean([value(each) for each in seeds], axis=0, dtype=np.float64) for seeds in trials]
    return np.stack(columns, axis=1)


class _Mean:
    """Of ``values`` (n, T), the weighted mean over rows."""

    def __init__(self, values: Floats) -> None:
        self._values = values

    def every(self, weights: Floats) -> Floats:
        found: Floats = weights @ self._values
        return divided(found, weights.sum(axis=1, keepdims=True))

    def parts(self, weights: Floats, trial: int) -> Parts:
        rows = weights.sum(axis=1, keepdims=True)
        return Parts(weights @ self._values[:, [trial]], rows, rows > 0)


class _BalancedAccuracy:
    """Of ``right`` (n, T), which is 1 where a trial is right."""

    def __init__(self, right: Floats, y: NDArray[np.int64]) -> None:
        self._parts = [(rows, right[rows]) for rows in (np.flatnonzero(y == c) for c in np.unique(y))]

    def every(self, weights: Floats) -> Floats:
        hits = np.stack([weights[:, rows] @ right for rows, right in self._parts], axis=-1)
        return balanced_accuracy(hits, self._support(weights)[:, None])

    def parts(self, weights: Floats, trial: int) -> Parts:
        hits = np.stack([weights[:, rows] @ right[:, trial] for rows, right in self._parts], axis=-1)
        support = self._support(weights)
        return Parts(hits, support, support > 0)

    def _support(self, weights: Floats) -> Floats:
        return np.stack([weights[:, rows].sum(axis=1) for rows, _ in self._parts], axis=-1)


class _OneByOne:
    """A score that is no sum over rows: trial by trial, and seed by seed."""

    def __init__(self, trials: Trials) -> None:
        self._trials = trials

    def every(self, weights: Floats) -> Floats:
        by_seed = ([mean_there(self._of(each, weights).ratios) for each in seeds] for seeds in self._trials)
        return np.stack([np.mean(each, axis=0) for each in by_seed], axis=1)

    def parts(self, weights: Floats, trial: int) -> Parts:
        above, below, there = zip(*(self._of(each, weights) for each in self._trials[trial]), strict=True)
        return Parts(np.mean(above, axis=0), np.mean(below, axis=0), there[0])

    def _of(self, found: Outcomes, weights: Floats) -> Parts:
        raise NotImplementedError


class _MacroF1(_OneByOne):
    def __init__(self, trials: Trials, y: NDArray[np.int64], n_classes: int) -> None:
        super().__init__(trials)
        self._y, self._classes = y, n_classes

    def _counts(self, classes: NDArray[Any], weights: Floats) -> Floats:
        """The weight of each class (runs, classes)."""
        from scipy.sparse import csr_array

        n = len(classes)
        hot = csr_array((np.ones(n), classes.astype(np.int64), np.arange(n + 1)), shape=(n, self._classes))
        return np.asarray(weights @ hot)

    def _of(self, found: Outcomes, weights: Floats) -> Parts:
        support, spoken = self._counts(self._y, weights), self._counts(found.predicted, weights)
        hits = self._counts(self._y, weights * (found.predicted == self._y))
        # What was predicted as a class that a sample lacks counts over all samples, or F1 is that of a class which is more frequent.
        return Parts(2 * hits, support + spoken, support > 0)


class _Area(_OneByOne):
    def __init__(self, trials: Trials, y: NDArray[np.int64]) -> None:
        super().__init__(trials)
        self._y = y

    def _of(self, found: Outcomes, weights: Floats) -> Parts:
        p = probabilities(self._y, found)
        classes = [1] if p.shape[1] == 2 else list(range(p.shape[1]))
        above, below = np.stack([_pairs(self._y == c, p[:, c], weights) for c in classes], axis=-1)
        return Parts(above, below, below > 0)


def _pairs(mine: NDArray[np.bool_], p: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """The terms (runs,) of the area under the ROC curve of rows that are ``mine`` (n,) against the others: pairs of which mine is the more
    probable one, where those with one probability count half, and all pairs.
    """
    order = np.argsort(p, kind="stable")
    ordered, mine, weights = p[order], mine[order], weights[:, order]
    others = np.cumsum(weights * ~mine, axis=1)
    others = np.concatenate([np.zeros((len(weights), 1)), others], axis=1)
    below = others[:, np.searchsorted(ordered, ordered[mine], "left")]
    up_to = others[:, np.searchsorted(ordered, ordered[mine], "right")]
    own = weights[:, mine]
    return (own * (below + up_to)).sum(axis=1) / 2, own.sum(axis=1) * others[:, -1]
