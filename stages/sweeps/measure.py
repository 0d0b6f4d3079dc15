"""How the trials of a sweep are measured: on which rows, in which folds, and by which score."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stages.heads import rowwise
from stages.heads.dataset import Dataset
from stages.heads.intervals import design_effect
from stages.sweeps.folds import Fold, cross_validation
from stages.sweeps.ledger import Chosen, Score
from stages.sweeps.spec import SweepSpec
from stages.training.outcomes import Outcomes

# Heads of several folds share training images, so that they are right or wrong together: three images tell as much as two. Of heads that
# are trained on 3, 5 or 10 folds of 20 to 1,000 images, the variance of the accuracy was 1.0 to 1.8 times that of as many images on their
# own, and with this the intervals hold the truth in 90 to 99 of 100 cases, of images in groups too (bench.coverage --only folds). There is
# no unbiased estimator of it: Y. Bengio and Y. Grandvalet, J. Mach. Learn. Res. 5 (2004) 1089.
IN_FOLDS = 1.5
# An area under the curve over all folds compares probabilities of different heads, so that it comes out too low where folds are small:
# G. Forman and M. Scholz, SIGKDD Explor. 12 (2010) 49. From as many images in each fold on, or groups of them, its interval holds the
# truth all the same, of classes of like size (bench.coverage --only folds).
LEAST_OF_AREA = 40


@dataclass(frozen=True)
class Measure:
    """The ``folds`` that trials are trained and scored on, the labels ``y`` (all rows,) of so many classes, and the ``metric`` that ranks.

    Of all rows that are held out by a fold, those that are ``counted`` have a part in scores, in ascending order: copies of an image
    are one image. Each of them is held out by one fold. ``groups`` (n,) are those of the rows that count, None where each is on its own.
    """

    folds: Sequence[Fold]
    y: NDArray[np.int64]
    n_classes: int
    counted: NDArray[np.int64]
    metric: str = "accuracy"
    groups: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, spec: SweepSpec, data: Dataset, metric: str = "accuracy") -> "Measure":
        """On validation, or on folds of train and validation together. Raises DataError for fewer images than folds."""
        if spec.cv is None:
            folds, counted = [(data.rows("train"), data.rows("validation"))], data.distinct("validation")
        else:
            folds, counted = cross_validation(data, spec.cv, spec.seed), data.distinct("train", "validation")
        groups = None if data.groups is None else data.groups[counted]
        if groups is not None and len(np.unique(groups)) == len(groups):
            groups = None
        return cls(folds, data.y, len(data.classes), counted, metric, groups)

    @cached_property
    def scored(self) -> list[NDArray[np.int64]]:
        """For each fold the rows that count, in ascending order."""
        return [np.intersect1d(held, self.counted) for _, held in self.folds]

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Of the rows that count (n,)."""
        return self.y[self.counted]

    @property
    def shared(self) -> float:
        """By how much the variance of a score is larger as heads of several folds share training images."""
        return IN_FOLDS if len(self.folds) > 1 else 1.0

    @property
    def is_alone(self) -> bool:
        """Whether each image tells by itself."""
        return self.groups is None and self.shared == 1.0

    @property
    def whole(self) -> bool:
        """Whether the log-probabilities of all classes are needed."""
        return self.metric == "auc" and self.n_classes > 2

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
            none = None if self.metric == "accuracy" else Chosen(self.metric, None)
            return Score(0.0, float("inf"), len(self.counted), chosen=none)
        accuracy = [float((each.predicted == self.labels).mean()) for each in by_seed]
        loss = [float(rowwise.losses(each).mean()) for each in by_seed]
        chosen = self.chosen(by_seed) if self.metric != "accuracy" else None
        return Score(float(np.mean(accuracy)), float(np.mean(loss)), len(self.counted), _spread(accuracy), chosen)

    def chosen(self, by_seed: Sequence[Outcomes]) -> Chosen:
        """The score that ranks trials, without an interval, which takes as long again."""
        values = [rowwise.score(self.metric, self.labels, each, self.n_classes) for each in by_seed]
        there = [value for value in values if value is not None]
        if len(there) < len(values):
            return Chosen(self.metric, None)
        return Chosen(self.metric, float(np.mean(there)), _spread(there))

    def with_interval(self, score: Score, by_seed: Sequence[Outcomes]) -> Score:
        """The score with the interval of what ranks trials: of several seeds, the means of its ends; and with what groups and folds
        change of it.
        """
        if not by_seed:
            return score
        effects = [design_effect(each.predicted == self.labels, self.groups) for each in by_seed]
        if not self.is_alone:
            score = score._replace(effect=self.shared * float(np.mean(effects)))
        if self.metric == "accuracy":
            return score
        if not self.has_interval:
            return score._replace(chosen=self.chosen(by_seed))
        found = [
            rowwise.interval(self.metric, self.labels, each, self.n_classes, effect, self.groups, self.shared)
            for each, effect in zip(by_seed, effects, strict=True)
        ]
        ends = [each for each in found if each is not None]
        chosen = self.chosen(by_seed)
        if len(ends) == len(found):
            low, high = (float(np.mean(column)) for column in zip(*ends, strict=True))
            chosen = chosen._replace(interval=(low, high))
        return score._replace(chosen=chosen)

    @cached_property
    def has_interval(self) -> bool:
        """Whether what ranks trials has an interval: an area needs large folds."""
        units = len(self.counted) if self.groups is None else len(np.unique(self.groups))
        return self.metric != "auc" or len(self.folds) == 1 or units >= LEAST_OF_AREA * len(self.folds)

    def is_of(self, score: Score) -> bool:
        """Whether a score surely has what groups and folds change of its interval. Of both it is not known: the effect that an earlier
        version computed is that of groups alone, which may be any number. Nor may it have an interval that is none.
        """
        if score.chosen and score.chosen.interval and not self.has_interval:
            return False
        if self.groups is None:
            return (score.effect or 1.0) == self.shared
        return score.effect is not None and self.shared == 1.0

    def by_groups(self, score: Score) -> Score:
        """The score of a trial whose outcomes were not kept: as if each group were one image. An effect that is known stays as it is."""
        if score.chosen and not self.has_interval:
            score = score._replace(chosen=score.chosen._replace(interval=None))
        if self.is_alone or score.effect is not None:
            return score
        images = 1.0 if self.groups is None else len(self.groups) / len(np.unique(self.groups))
        return score._replace(effect=self.shared * images)

    def told(self, by_seed: Sequence[Outcomes]) -> bool:
        """Whether outcomes that were kept are of the rows that count, and tell what ranks trials."""
        rows = len(self.counted)
        return all(len(each.predicted) == rows and rowwise.told(self.metric, each, self.n_classes) for each in by_seed)


def _spread(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
