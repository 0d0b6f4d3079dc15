"""Heads that are really trained on what is drawn, and whether the intervals of the report hold what is true of them: what
``bench.coverage`` prints of learning curves, folds, and the nearest neighbour of the audit.

Images are drawn from classes that overlap (normal distributions), heads are linear discriminants, which are fitted in no time. What is
true of a head is what it has right of many other images.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.simulated import Held, note
from cache.manifest import ImageRecord, Manifest
from stages.audit.curve import DRAWS, Curve, Point, described, power_law
from stages.audit.leak import accuracy_interval
from stages.heads import rowwise
from stages.heads.calibration import log_softmax
from stages.heads.dataset import Dataset
from stages.sweeps.measure import Measure
from stages.sweeps.optimism import corrected
from stages.sweeps.spec import SweepSpec
from stages.training.outcomes import Outcomes

MANY, DIMENSIONS = 20_000, 40
# Heads of which the mean score is taken for the truth.
HEADS = 100
# Trials of a sweep, each of which sees so many of the dimensions.
TRIALS, SEEN = 10, 30
# The share of the variance of their looks that the images of a group have in common.
COMMON = 0.9
# Training images for each validation image, as of the splits 0.6 and 0.2; of the nearest neighbour always so many.
TRAIN, NEIGHBOURS = 3, 200
Images = tuple[NDArray[np.float64], NDArray[np.int64]]
Linear = tuple[NDArray[np.float64], NDArray[np.float64]]


class World(NamedTuple):
    """Where the classes lie (classes, dimensions)."""

    means: NDArray[np.float64]

    @classmethod
    def of(cls, classes: int, apart: float) -> "World":
        rng = np.random.default_rng(1)
        return cls(rng.normal(size=(classes, DIMENSIONS)) * apart / np.sqrt(DIMENSIONS))

    def draw(self, n: int, rng: np.random.Generator, size: int = 1) -> Images:
        """Images (n, dimensions) and their labels (n,), in which every class occurs; in groups of a ``size`` one after another, of which
        each image is as if it was drawn on its own.
        """
        classes, units = len(self.means), n // size
        y = np.concatenate([np.arange(classes), rng.integers(0, classes, units - classes)]).repeat(size)
        looks = rng.normal(size=(units, self.means.shape[1]))
        if size > 1:
            own = rng.normal(size=(units * size, self.means.shape[1]))
            looks = np.sqrt(COMMON) * looks.repeat(size, axis=0) + np.sqrt(1 - COMMON) * own
        return self.means[y] + looks, y

    def fit(self, X: NDArray[np.float64], y: NDArray[np.int64]) -> Linear:
        """A linear discriminant whose covariance is shrunk towards a sphere. A class without images is hardly ever predicted."""
        classes, dimensions = self.means.shape
        counts = np.bincount(y, minlength=classes)
        means = np.stack([X[y == c].sum(axis=0) for c in range(classes)]) / np.maximum(counts, 1)[:, None]
        rest = X - means[y]
        covariance = rest.T @ rest / max(len(X) - classes, 1)
        covariance += 0.3 * np.trace(covariance) / dimensions * np.eye(dimensions)
        weights = np.linalg.solve(covariance, means.T).T
        frequent = np.log(counts / len(y) + 1e-9)
        return weights, frequent - (weights * means).sum(axis=1) / 2

    def average(
        self, metrics: Sequence[str], images: int, many: Images, rng: np.random.Generator, size: int = 1
    ) -> dict[str, float]:
        """The scores on ``many`` images of heads on so many ``images``, on average."""
        found = [said(self.fit(*self.draw(images, rng, size)), many) for _ in range(HEADS)]
        scores = {
            metric: [rowwise.score(metric, many[1], each, len(self.means)) for each in found] for metric in metrics
        }
        return {metric: float(np.mean(values)) for metric, values in scores.items()}


def said(head: Linear, images: Images) -> Outcomes:
    """What a head says of images."""
    X, y = images
    return Outcomes.of(y, log_softmax(X @ head[0].T + head[1]), whole=True)


def right(head: Linear, images: Images) -> NDArray[np.bool_]:
    """Whether a head is right about images."""
    X, y = images
    found: NDArray[np.bool_] = (X @ head[0].T + head[1]).argmax(axis=1) == y
    return found


def of_learning(world: World, n: int, runs: int, rng: np.random.Generator) -> Held:
    """Of the learning curve of heads that are scored on ``n`` images: its points, of which the truth is that of the heads that were
    trained, and what twice the images give heads on average, and add.
    """
    held: Held = defaultdict(list)
    many, whole, classes = world.draw(MANY, rng), TRAIN * n, len(world.means)
    now, then = (world.average(["accuracy"], times * whole, many, rng)["accuracy"] for times in (1, 2))
    for _ in range(runs):
        X, y = world.draw(whole, rng)
        scored, points, of_heads = world.draw(n, rng), [], defaultdict(list)
        for share, draws in DRAWS.items():
            for draw in range(draws):
                order = rng.permutation(whole)
                of_class = [order[y[order] == c] for c in range(classes)]
                rows = np.concatenate([each[: max(2, round(share * len(each)))] for each in of_class])
                head = world.fit(X[rows], y[rows])
                points.append(Point(share, draw, len(rows), 1.0, right(head, scored)))
                of_heads[share].append(right(head, many).mean())
        curve = Curve(points, np.arange(n))
        for row in (described(curve)[place] for place in (0, -1)):
            note(
                held, f"point at {row['share']:.0%}", (row["low"], row["high"]), float(np.mean(of_heads[row["share"]]))
            )
        law = power_law(curve)
        note(held, "twice the images", law and law.interval, then)
        note(held, "what twice the images add", law and law.more_interval, then - now)
    return held


def measured(y: NDArray[np.int64], classes: int, folds: int, size: int, seed: int) -> Measure:
    """How the trials of a sweep with ``folds`` are measured on images with labels ``y`` (n,), in groups of a ``size``."""
    names = tuple(map(str, range(classes)))
    # Their digests are in their order.
    records = tuple(ImageRecord(str(i), f"{i:064x}", names[label], "train") for i, label in enumerate(y))
    groups = tuple(str(i // size) for i in range(len(y))) if size > 1 else ()
    data = Dataset(Manifest("", names, records, groups=groups), {})
    return Measure.of(SweepSpec(head="head", cv=folds, seed=seed), data)


def on_folds(world: World, measure: Measure, X: NDArray[np.float64]) -> list[Outcomes]:
    """What the heads of all folds say of the images that they were not trained on; one seed."""
    y = measure.y
    parts = [
        said(world.fit(X[rest], y[rest]), (X[out], y[out]))
        for (rest, _), out in zip(measure.folds, measure.scored, strict=True)
    ]
    return [measure.joined(parts)]


def of_folds(
    metrics: Sequence[str],
    folds: int,
    size: int,
    world: World,
    n: int,
    runs: int,
    rng: np.random.Generator,
) -> Held:
    """Of the scores of a trial over folds of ``n`` images: what heads on as many images as those of a fold come to on average."""
    held: Held = defaultdict(list)
    classes, units = len(world.means), n // size
    rest = round(units * (1 - 1 / folds))
    if units < folds or rest < classes:
        return held
    truth = world.average(metrics, rest * size, world.draw(MANY, rng), rng, size)
    for run in range(runs):
        X, y = world.draw(n, rng, size)
        plain = measured(y, classes, folds, size, run)
        outcomes = on_folds(world, plain, X)
        for metric in metrics:
            measure = replace(plain, metric=metric)
            score = measure.with_interval(measure.score(outcomes), outcomes).by(metric)
            note(held, f"{metric.replace('_', ' ')} of a trial", score and score.interval, truth[metric])
    return held


def of_best_on_folds(folds: int, world: World, n: int, runs: int, rng: np.random.Generator) -> Held:
    """Of the corrected score of the best of several trials over folds of ``n`` images, each of which sees other dimensions of them."""
    held: Held = defaultdict(list)
    seen = [np.sort(rng.permutation(DIMENSIONS)[:SEEN]) for _ in range(TRIALS)]
    worlds, (X, y) = [World(world.means[:, each]) for each in seen], world.draw(MANY, rng)
    rest = round(n * (1 - 1 / folds))
    truth = [w.average(["accuracy"], rest, (X[:, s], y), rng)["accuracy"] for w, s in zip(worlds, seen, strict=True)]
    for run in range(runs):
        X, y = world.draw(n, rng)
        measure = measured(y, len(world.means), folds, 1, run)
        outcomes = [on_folds(w, measure, X[:, s]) for w, s in zip(worlds, seen, strict=True)]
        scores = [measure.score(each) for each in outcomes]
        order = sorted(range(TRIALS), key=lambda i: scores[i].ranking())
        best = order[0]
        of = (measure.labels, measure.n_classes, run, measure.groups, measure.shared)
        found = corrected("accuracy", [outcomes[i] for i in order], scores[best].accuracy, *of)
        note(held, "accuracy of the best, corrected", found and found.interval, truth[best])
        note(held, "the same, not corrected", scores[best].interval, truth[best])
    return held


def of_neighbour(world: World, n: int, runs: int, rng: np.random.Generator, size: int = 1) -> Held:
    """Of the accuracy of one nearest neighbour among the training images that there are, on ``n`` images, in groups of a ``size``."""
    held: Held = defaultdict(list)
    X, labels = world.draw(NEIGHBOURS, rng)

    def nearest_is_right(images: Images) -> NDArray[np.bool_]:
        distance = (X**2).sum(axis=1) - 2 * images[0] @ X.T
        found: NDArray[np.bool_] = labels[distance.argmin(axis=1)] == images[1]
        return found

    truth = float(nearest_is_right(world.draw(5 * MANY, rng)).mean())
    for _ in range(runs):
        hits = nearest_is_right(world.draw(n, rng, size))
        words = f"one nearest neighbour{f', groups of {size}' if size > 1 else ''}"
        note(held, words, accuracy_interval(hits, np.arange(n // size).repeat(size)), truth)
    return held


WORLDS = {"2 classes": World.of(2, 2.0), "4 classes": World.of(4, 2.5)}
