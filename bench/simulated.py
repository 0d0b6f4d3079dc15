"""Simulated heads whose true scores are known, and whether the intervals of the report hold these: what ``bench.coverage`` prints.

Images are drawn from classes that overlap (normal distributions around the corners of a simplex), heads are the true class
probabilities, or these made too sure of themselves. The truth is that of a million images. Images of a group have one class, and a
part of what they look like, in common.
"""

from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.errors import HeadError
from stages.audit.curve import DRAWS, Curve, Point, described, power_law
from stages.heads.abstention import Confident, selective, threshold_for
from stages.heads.calibration import cooled, log_softmax, reliability, temperature
from stages.heads.intervals import paired_difference, wilson
from stages.heads.metrics import CALIBRATED, scores

MANY = 1_000_000
# Of so few among these nothing is known.
FEW = 50
# Images of a group, and the share of the variance of their looks that they have in common.
SIZE, COMMON = 5, 0.7
Interval = tuple[float, float]
# By kind of interval, of each run whether it holds the truth, and its width; None where there is no interval.
Held = dict[str, list[tuple[bool, float] | None]]


class Population(NamedTuple):
    """How far classes stand apart, how frequent each is, and by what the head multiplies the true logits."""

    apart: float
    frequencies: tuple[float, ...]
    sharpness: float = 1.0

    @property
    def classes(self) -> list[str]:
        return [str(i) for i in range(len(self.frequencies))]

    def draw(self, n: int, rng: np.random.Generator, size: int = 1) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Labels (n,) and the head's log-probabilities (n, classes), in groups of a ``size`` one after another."""
        prior = np.array(self.frequencies) / sum(self.frequencies)
        y = rng.choice(len(prior), n // size, p=prior).repeat(size)
        x = rng.normal(size=(n, len(prior)))
        if size > 1:
            alike = rng.normal(size=(n // size, len(prior))).repeat(size, axis=0)
            x = np.sqrt(COMMON) * alike + np.sqrt(1 - COMMON) * x
        x[np.arange(n), y] += self.apart
        return y, log_softmax(self.sharpness * (np.log(prior) + self.apart * x))


POPULATIONS = {
    "2 classes, easy": Population(3.0, (1, 1)),
    "2 classes, hard": Population(1.0, (1, 1)),
    "2 classes, 9 to 1": Population(2.0, (9, 1)),
    "2 classes, too sure": Population(2.0, (1, 1), 3.0),
    "3 classes": Population(2.0, (5, 3, 2), 1.5),
    "10 classes": Population(3.5, (1,) * 10),
    "10 classes, uneven, too sure": Population(3.0, (20, 15, 12, 10, 10, 8, 8, 7, 5, 5), 2.0),
}
GROUPED = {name: POPULATIONS[name] for name in ("2 classes, easy", "2 classes, too sure", "3 classes")}
AFTER = {name: POPULATIONS[name] for name in ("2 classes, easy", "2 classes, too sure", "10 classes, uneven, too sure")}


@cache
def truth_of(population: Population) -> dict[str, Any]:
    """The scores of a head on a million images; what these are in groups changes nothing."""
    return scores(*population.draw(MANY, np.random.default_rng(1)), population.classes)


def note(held: Held, name: str, interval: Any, truth: float) -> None:
    """Write down whether an interval holds the truth."""
    held[name].append(interval and (bool(interval[0] <= truth <= interval[1]), float(interval[1] - interval[0])))


def flat(found: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each score that has an interval: its words, its key, and where it stands; of the classes, the last."""
    of_class = list(found["per_class"].values())[-1]
    for where, words in ((found, ""), (of_class, " of a class")):
        yield from ((f"{key.replace('_', ' ')}{words}", key, where) for key in where if f"{key}_interval" in where)


def of_scores(population: Population, n: int, runs: int, rng: np.random.Generator, size: int = 1) -> Held:
    """Of the scores of a head; with groups of a ``size``, whose images count as fewer."""
    held: Held = defaultdict(list)
    truth = truth_of(population)
    of_class = list(truth["per_class"].values())[-1]
    groups = np.arange(n // size).repeat(size) if size > 1 else None
    for _ in range(runs):
        found = scores(*population.draw(n, rng, size), population.classes, intervals=True, groups=groups)
        for words, key, where in flat(found):
            if (expected := (truth if where is found else of_class)[key]) is not None:
                note(held, words, where[f"{key}_interval"], expected)
    return held


@cache
def truth_after(population: Population) -> tuple[NDArray[np.float64], dict[str, list[float]]]:
    """Logarithms of temperatures, and at each the true scores."""
    y, logs = population.draw(MANY // 10, np.random.default_rng(1))
    at = np.linspace(np.log(0.4), np.log(6), 61)
    found = [scores(y, cooled(logs, float(np.exp(each))), population.classes) for each in at]
    return at, {key: [each[key] for each in found] for key in CALIBRATED}


def of_calibrated(population: Population, n: int, runs: int, rng: np.random.Generator) -> Held:
    """Of the scores on test after a temperature that was fitted on as many validation images."""
    held: Held = defaultdict(list)
    at, truth = truth_after(population)
    for _ in range(runs):
        t = temperature(*population.draw(n, rng))
        y, mine = population.draw(n, rng)
        found = scores(y, cooled(mine, t), population.classes, intervals=True)
        for key in (each for each in CALIBRATED if f"{each}_interval" in found):
            expected = float(np.interp(np.log(t), at, truth[key]))
            note(held, f"{key.replace('_', ' ')}, calibrated", found[f"{key}_interval"], expected)
    return held


def of_pairs(n: int, runs: int, rng: np.random.Generator, size: int = 1) -> Held:
    """Of the difference between two heads on the same images, of which the second is as good, or worse."""
    held: Held = defaultdict(list)
    units = n // size
    groups = np.arange(units).repeat(size) if size > 1 else None
    for worse in (0.0, 0.05, 0.15):
        for _ in range(runs):
            first = rng.random(units) < 0.9
            # Both have the same luck with most images.
            second = np.where(rng.random(units) < 0.8, first, rng.random(units) < 0.9) & (rng.random(units) >= worse)
            found = paired_difference(first.repeat(size), second.repeat(size), groups)
            note(held, f"difference {0.9 * worse:.3f}", found.interval, 0.9 * worse)
    return held


def of_abstention(population: Population, n: int, runs: int, rng: np.random.Generator, size: int = 1) -> Held:
    """Whether a threshold keeps what it promises; none breaks no promise. In place of the width, the share that is answered."""
    held: Held = defaultdict(list)

    def confident(n: int) -> Confident:
        y, logs = population.draw(n, rng, size)
        groups = np.arange(n // size).repeat(size) if size > 1 else None
        return Confident(np.exp(logs.max(axis=1)), logs.argmax(axis=1) == y, groups)

    many = confident(MANY)
    order = np.argsort(-many.confidence)
    confidence, right = -many.confidence[order], np.cumsum(many.right[order])
    for _ in range(runs):
        found = selective({"validation": confident(n)})
        for wished in (0.8, 0.9, 0.95):
            try:
                threshold = threshold_for(found, wished)
            except HeadError:
                held[f"at least {wished}"].append((True, 0.0))
                continue
            answered = max(1, int(np.searchsorted(confidence, -threshold, "right")))
            held[f"at least {wished}"].append((bool(right[answered - 1] / answered >= wished), answered / MANY))
    return held


def of_bins(population: Population, n: int, runs: int, rng: np.random.Generator) -> Held:
    """Of the bins of the reliability diagram: how accurate the head is for images whose confidence is between the ends of the bin."""
    held: Held = defaultdict(list)
    y, logs = population.draw(MANY, rng)
    many = np.exp(logs.max(axis=1))
    order = np.argsort(many)
    many, right = many[order], np.concatenate([[0], np.cumsum((logs.argmax(axis=1) == y)[order])])
    for _ in range(runs):
        y, logs = population.draw(n, rng)
        confidence, start = np.exp(logs.max(axis=1)), 0
        ordered = np.sort(confidence)
        for each in reliability(confidence, logs.argmax(axis=1) == y):
            first, last = np.searchsorted(many, ordered[[start, start + each.n - 1]])
            start += each.n
            if last - first >= FEW:
                truth = (right[last] - right[first]) / (last - first)
                note(held, "bin of the reliability diagram", wilson(each.accuracy * each.n, each.n), float(truth))
    return held


def of_answers(population: Population, n: int, runs: int, rng: np.random.Generator) -> Held:
    """Of the accuracy on ``n`` test images of the answers from a threshold on, which as many validation images gave."""
    held: Held = defaultdict(list)

    def confident(n: int) -> Confident:
        y, logs = population.draw(n, rng)
        return Confident(np.exp(logs.max(axis=1)), logs.argmax(axis=1) == y)

    many = confident(MANY)
    for _ in range(runs):
        test = confident(n)
        found = selective({"validation": confident(n)})
        for wished in (0.8, 0.9):
            try:
                threshold = threshold_for(found, wished)
            except HeadError:
                held["accuracy of the answers"].append(None)
                continue
            truth = float(many.right[many.confidence >= threshold].mean())
            right = test.right[test.confidence >= threshold]
            note(held, "accuracy of the answers", wilson(int(right.sum()), len(right)) if len(right) else None, truth)
    return held


def of_chosen(among: int, n: int, runs: int, rng: np.random.Generator) -> Held:
    """As ``of_abstention``, of the head that its ``n`` images chose among so many, which are equally good: of what each sees in an image,
    a part is the same for all. Thresholds that allow for the choice, and those that do not.
    """
    held: Held = defaultdict(list)

    def drawn(n: int, heads: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Confidences (n, heads), and which are right; confidences are true."""
        sign = rng.choice([-1, 1], n)
        seen = 1.2 * sign + rng.normal(size=n)
        logits = 2.4 * (seen[:, None] + 0.7 * rng.normal(size=(n, heads))) / 1.49
        return 1 / (1 + np.exp(-np.abs(logits))), (logits > 0) == (sign > 0)[:, None]

    p, hits = (each[:, 0] for each in drawn(MANY, 1))
    order = np.argsort(-p)
    confidence, right = -p[order], np.cumsum(hits[order])
    for _ in range(runs):
        p, hits = drawn(n, among)
        losses = -np.log(np.where(hits, p, 1 - p)).mean(axis=0)
        best = np.lexsort((losses, -hits.mean(axis=0)))[0]
        found = selective({"validation": Confident(p[:, best], hits[:, best])})
        for wished in (0.9, 0.95):
            for told, allowed in ((f"at least {wished}", among), (f"at least {wished}, not allowed for", 1)):
                try:
                    threshold = threshold_for(found, wished, allowed)
                except HeadError:
                    held[told].append(None)
                    continue
                answered = max(1, int(np.searchsorted(confidence, -threshold, "right")))
                held[told].append((bool(right[answered - 1] / answered >= wished), answered / MANY))
    return held


def of_curve(n: int, runs: int, rng: np.random.Generator) -> Held:
    """Of the learning curve: its points, and (a twentieth of the runs) what twice the images give; heads on one image have like luck."""
    held: Held = defaultdict(list)
    a, b, c = 0.02, 0.05, 0.4
    for run in range(runs):
        common = rng.random(n)
        points = []
        for share, draws in DRAWS.items():
            error = a + b * share**-c
            luck = [np.where(rng.random(n) < 0.8, common, rng.random(n)) for _ in range(draws)]
            points += [Point(share, i, round(10_000 * share), 1.0, each >= error) for i, each in enumerate(luck)]
        curve = Curve(points, np.arange(n))
        for row in (described(curve)[place] for place in (0, -1)):
            note(held, f"point at {row['share']:.0%}", (row["low"], row["high"]), 1 - a - b * row["share"] ** -c)
        if run < max(1, runs // 20):
            law = power_law(curve)
            note(held, "twice the images", law and law.interval, 1 - a - b * 2**-c)
            note(held, "what twice the images add", law and law.more_interval, b - b * 2**-c)
    return held
