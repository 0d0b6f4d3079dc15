"""How the trials of a sweep are measured: on which rows, in which folds, and by which score."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stages.heads import rowwise
from stages.heads.dataset import Dataset
from stages.sweeps.folds import Fold, cross_validation
from stages.sweeps.ledger import Score
from stages.sweeps.spec import SweepSpec
from stages.training.outcomes import Outcomes


@dataclass(frozen=True)
class Measure:
    """The ``folds`` that trials are trained and scored on, and the labels ``y`` (all rows,) of so many classes.

    Of all rows that are held out by a fold, those that are ``counted`` have a part in scores, in ascending order: copies of an image
    are one image. Each of them is held out by one fold.
    """

    folds: Sequence[Fold]
    y: NDArray[np.int64]
    n_classes: int
    counted: NDArray[np.int64]

    @classmethod
    def of(cls, spec: SweepSpec, data: Dataset) -> "Measure":
        """On validation, or on folds of train and validation together. Raises DataError for fewer images than folds."""
        if spec.cv is None:
            folds, counted = [(data.rows("train"), data.rows("validation"))], data.distinct("validation")
        else:
            folds, counted = cross_validation(data, spec.cv, spec.seed), data.distinct("train", "validation")
        return cls(folds, data.y, len(data.classes), counted)

    @cached_property
    def scored(self) -> list[NDArray[np.int64]]:
        """For each fold the rows that count, in ascending order."""
        return [np.intersect1d(held, self.counted) for _, held in self.folds]

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Of the rows that count (n,)."""
        return self.y[self.counted]

    def joined(self, parts: Sequence[Outcomes]) -> Outcomes:
        """The outcomes of all rows that count, in their order, from those of each fold."""
        if len(parts) == 1:
            return parts[0]
        return Outcomes.joined(parts, np.argsort(np.concatenate(self.scored), kind="stable"))

    def score(self, by_seed: Sequence[Outcomes]) -> Score:
        """The score of a trial, whose outcomes are ``joined`` for each seed: means over seeds, and the spread between these.

        Without outcomes, as no epoch of a trial was finite yet, the worst there is.
        """
        if not by_seed:
            return Score(0.0, float("inf"), len(self.counted))
        accuracy = [(each.predicted == self.labels).mean() for each in by_seed]
        loss = [rowwise.losses(each).mean() for each in by_seed]
        spread = float(np.std(accuracy, ddof=1)) if len(by_seed) > 1 else 0.0
        return Score(float(np.mean(accuracy)), float(np.mean(loss)), len(self.counted), spread)
