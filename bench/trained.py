"""Heads that are really trained on what is drawn, and whether the intervals of the report hold what is true of them: what
``bench.coverage`` prints of learning curves, folds, and the nearest neighbour of the audit.

Images are drawn from classes that overlap (normal distributions), heads are linear discriminants, which are fitted in no time. What is
true of a head is what it has right of many other images.
"""

from collections import defaultdict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.simulated import Held, note
from stages.audit.curve import DRAWS, Curve, Point, described, power_law
from stages.audit.leak import accuracy_interval
from stages.sweeps.measure import Measure
from stages.training.outcomes import Outcomes

MANY, DIMENSIONS, FOLDS = 20_000, 40, 5
# Heads of which the mean accuracy is taken for the truth.
HEADS = 100
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

    def draw(self, n: int, rng: np.random.Generator) -> Images:
        """Images (n, dimensions) and their labels (n,), in which every class occurs."""
        classes = len(self.means)
        y = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
        return self.means[y] + rng.normal(size=(n, DIMENSIONS)), y

    def fit(self, X: NDArray[np.float64], y: NDArray[np.int64]) -> Linear:
        """A linear discriminant whose covariance is shrunk towards a sphere."""
        classes = len(self.means)
        means = np.stack([X[y == c].mean(axis=0) for c in range(classes)])
        rest = X - means[y]
        covariance = rest.T @ rest / max(len(X) - classes, 1)
        covariance += 0.3 * np.trace(covariance) / DIMENSIONS * np.eye(DIMENSIONS)
        weights = np.linalg.solve(covariance, means.T).T
        frequent = np.log(np.bincount(y, minlength=classes) / len(y) + 1e-9)
        return weights, frequent - (weights * means).sum(axis=1) / 2

    def accuracy(self, images: int, many: Images, rng: np.random.Generator) -> float:
        """What heads on so many images are right for, on average."""
        return float(np.mean([right(self.fit(*self.draw(images, rng)), many).mean() for _ in range(HEADS)]))


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
    now, then = (world.accuracy(times * whole, many, rng) for times in (1, 2))
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


def of_folds(world: World, n: int, runs: int, rng: np.random.Generator) -> Held:
    """Of a trial that is scored over five folds of ``n`` images: what heads on four fifths of as many are right for, on average."""
    held: Held = defaultdict(list)
    truth = world.accuracy(round(n * (1 - 1 / FOLDS)), world.draw(MANY, rng), rng)
    for _ in range(runs):
        X, y = world.draw(n, rng)
        of = rng.permutation(np.arange(n) % FOLDS)
        folds = [(np.flatnonzero(of != each), np.flatnonzero(of == each)) for each in range(FOLDS)]
        hits = np.empty(n, bool)
        for rest, out in folds:
            hits[out] = right(world.fit(X[rest], y[rest]), (X[out], y[out]))
        outcomes = Outcomes(
            np.where(hits, y, len(world.means)).astype(np.uint16), np.zeros(n, np.float32), (~hits).astype(np.uint16)
        )
        measure = Measure(folds, y, len(world.means), np.arange(n))
        note(
            held,
            "accuracy of a trial on folds",
            measure.with_interval(measure.score([outcomes]), [outcomes]).interval,
            truth,
        )
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
        one, y = world.draw(n // size, rng)
        noise = rng.normal(size=(n // size * size, DIMENSIONS))
        # Images of a group differ a little from one another, and each is as if it was drawn on its own.
        mean = world.means[y].repeat(size, axis=0)
        looks = mean + np.sqrt(0.9) * (one.repeat(size, axis=0) - mean) + np.sqrt(0.1) * noise if size > 1 else one
        hits = nearest_is_right((looks, y.repeat(size)))
        words = f"one nearest neighbour{f', groups of {size}' if size > 1 else ''}"
        note(held, words, accuracy_interval(hits, np.arange(n // size).repeat(size)), truth)
    return held


WORLDS = {"2 classes": World.of(2, 2.0), "4 classes": World.of(4, 2.5)}
