"""How often do the 95% intervals of the report hold the truth? Simulated heads whose true scores are known (``bench/simulated.py``).

    python -m bench.coverage [--runs 1000] [--only KIND] [--n 20 100 1000]

For each kind of interval and number of images: the percentage of runs whose interval holds the truth, the 95% interval of that
percentage, as runs are few, and the mean width of the intervals. A line ends in ``*`` where 92 to 98 is excluded: low, or high. "none"
where so few images give no interval. Of abstention the percentage is that of runs without a threshold that breaks its promise, 95 or
more, and the last number the share of images that is answered; of the best of several heads, that of the runs that have a threshold, with
the choice allowed for and without.

KIND is one of the list in this file. Most heads are made up; those of ``learning``, ``neighbour`` and ``folds`` are really trained
(``bench/trained.py``; ``learning`` a twentieth of the runs, the best of the trials on folds a fifth).

A sweep's winner is chosen among trials that are all equally good: how much too high its score is, in points, and what is left of that
after the correction (a twentieth of the runs, as of what twice the images give), of single images and of groups of five that are right
or wrong together.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.simulated import (
    AFTER,
    GROUPED,
    POPULATIONS,
    SIZE,
    Held,
    note,
    of_abstention,
    of_answers,
    of_bins,
    of_calibrated,
    of_chosen,
    of_curve,
    of_pairs,
    of_scores,
)
from bench.trained import WORLDS, of_best_on_folds, of_folds, of_learning, of_neighbour
from stages.heads import rowwise
from stages.heads.calibration import log_softmax
from stages.heads.intervals import wilson
from stages.heads.scored import METRICS
from stages.sweeps.ledger import Score
from stages.sweeps.measure import Measure
from stages.sweeps.optimism import corrected
from stages.training.outcomes import Outcomes

SIZES = (20, 100, 1000)
# Among how many heads validation chooses, of whose thresholds the promise is looked at.
AMONG = (10, 30)
LEAST, MOST = 0.92, 0.98
# Scores of trials beside the accuracy, and the classes that these are simulated with.
OTHERS, CLASSES = ("balanced_accuracy", "macro_f1", "auc", "log_loss"), 3
Simulation = Callable[[int, int, np.random.Generator], Held]


class Swept(NamedTuple):
    """Of one sweep the winner's error, plain and corrected, and whether the interval of the corrected score holds the truth."""

    plain: float
    corrected: float
    held: bool


def of_sweep(trials: int, alike: float, n: int, runs: int, rng: np.random.Generator, size: int = 1) -> list[Swept]:
    """Winners of sweeps of so many trials, each right for 0.9 of all images, of which a share has ``alike`` luck with all trials.
    Images are in groups of a ``size``, all of whose images are right or wrong together.
    """
    found = []
    for _ in range(runs):
        y, units = rng.integers(0, 2, n), n // size
        common = rng.random((units, 1)) < 0.9
        right = np.where(rng.random((units, 1)) < alike, common, rng.random((units, trials)) < 0.9).repeat(size, axis=0)
        right = right[:, np.argsort(-right.mean(axis=0), kind="stable")]  # the winner first
        log_p = np.log(np.where(right, 0.9, 0.1) * np.exp(rng.normal(0, 0.05, (n, trials)))).astype(np.float32)
        predicted = np.where(right, y[:, None], 1 - y[:, None]).astype(np.uint16)
        outcomes = [[Outcomes(predicted[:, k], log_p[:, k], ~right[:, k])] for k in range(trials)]
        plain = float(right.mean(axis=0).max())
        told = corrected("accuracy", outcomes, plain, y, 2, 0, np.arange(units).repeat(size) if size > 1 else None)
        assert told is not None and told.interval is not None
        low, high = told.interval
        found.append(Swept(plain - 0.9, told.value - 0.9, bool(low <= 0.9 <= high)))
    return found


def of_trials(n: int, runs: int, rng: np.random.Generator) -> Held:
    """Of the score of a trial that was not chosen, the mean of three seeds with like luck."""
    held: Held = defaultdict(list)
    for _ in range(runs):
        common = rng.random(n) < 0.9
        seeds = [np.where(rng.random(n) < 0.8, common, rng.random(n) < 0.9).mean() for _ in range(3)]
        note(held, "score of a trial", Score(float(np.mean(seeds)), 0.0, n).interval, 0.9)
    return held


def alike(n: int, trials: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], list[Outcomes]]:
    """Labels (n,) of three classes, and what equally good trials say, which have seven tenths of their luck in common."""
    y, common = rng.integers(0, CLASSES, n), rng.normal(size=(n, CLASSES))
    found = []
    for _ in range(trials):
        logits = np.sqrt(0.7) * common + np.sqrt(0.3) * rng.normal(size=(n, CLASSES))
        logits[np.arange(n), y] += 1.5
        found.append(Outcomes.of(y, log_softmax(1.5 * logits), whole=True))
    return y, found


@cache
def truth_of_trials(metric: str) -> float:
    """The score of each of them."""
    y, (found,) = alike(200_000, 1, np.random.default_rng(1))
    value = rowwise.score(metric, y, found, CLASSES)
    assert value is not None
    return value


def of_seeds(metric: str, n: int, runs: int, rng: np.random.Generator) -> Held:
    """Of a score of a trial that was not chosen, the mean of three seeds."""
    held: Held = defaultdict(list)
    for _ in range(runs):
        y, outcomes = alike(n, 3, rng)
        measure = Measure([(np.arange(0), np.arange(n))], y, CLASSES, np.arange(n), metric)
        score = measure.with_interval(measure.score(outcomes), outcomes).by(metric)
        note(held, f"{metric.replace('_', ' ')} of a trial", score and score.interval, truth_of_trials(metric))
    return held


def of_winners(metric: str, n: int, runs: int, rng: np.random.Generator) -> Held:
    """Of the corrected score of the best of ten trials (a twentieth of the runs)."""
    held: Held = defaultdict(list)
    sign = -1.0 if METRICS[metric] == "low" else 1.0
    for _ in range(max(1, runs // 20)):
        y, outcomes = alike(n, 10, rng)
        values = [rowwise.score(metric, y, each, CLASSES) for each in outcomes]
        if any(value is None for value in values):
            continue
        order = np.argsort([-sign * value for value in values if value is not None], kind="stable")
        found = corrected(metric, [[outcomes[i]] for i in order], float(values[order[0]] or 0.0), y, CLASSES, 0)
        interval = found and found.interval
        note(held, f"{metric.replace('_', ' ')} of a winner, corrected", interval, truth_of_trials(metric))
    return held


def told(held: list[tuple[bool, float] | None], least: float = LEAST, most: float = MOST) -> str:
    """The share of intervals that hold the truth, of those there are, with its interval, their mean width, and a mark."""
    there = [each for each in held if each is not None]
    if len(there) <= len(held) / 10:
        return f"{'none':>27} "
    hits = sum(each[0] for each in there)
    low, high = wilson(hits, len(there))
    mark = "*" if high < least or low > most else " "
    width = np.mean([each[1] for each in there])
    return f"{100 * hits / len(there):7.1f} ({100 * low:4.1f}-{100 * high:5.1f}) {width:6.4f}{mark}"


def lines(
    name: str, simulation: Simulation, sizes: list[int], runs: int, least: float = LEAST, most: float = MOST
) -> None:
    """Print what a simulation comes to, a line for each kind of interval."""
    print(name)
    found = [simulation(n, runs, np.random.default_rng(n)) for n in sizes]
    for kind in dict.fromkeys(kind for each in found for kind in each):
        cells = "".join(told(each.get(kind, [None]), least, most) for each in found)
        print(f"  {kind:30}{cells}", flush=True)


def simulations(only: str) -> list[tuple[str, Simulation]]:
    """Those of a kind, by name."""
    if only == "scores":
        return [(name, lambda *a, p=each: of_scores(p, *a)) for name, each in POPULATIONS.items()]
    if only == "calibrated":
        return [
            (f"{name}, after the temperature", lambda *a, p=each: of_calibrated(p, *a)) for name, each in AFTER.items()
        ]
    if only == "groups":
        return [
            (f"{name}, groups of {SIZE}", lambda *a, p=each: of_scores(p, *a, SIZE)) for name, each in GROUPED.items()
        ]
    if only == "pairs":
        found = [("two heads on the same images", of_pairs)]
        return [*found, (f"two heads, groups of {SIZE}", lambda *a: of_pairs(*a, SIZE))]
    if only == "abstention":
        population = POPULATIONS["2 classes, hard"]
        found = [("thresholds for abstention", lambda *a: of_abstention(population, *a))]
        found.append((f"thresholds, groups of {SIZE}", lambda *a: of_abstention(population, *a, SIZE)))
        return [*found, *((f"thresholds of the best of {k} heads", lambda *a, k=k: of_chosen(k, *a)) for k in AMONG)]
    if only == "bins":
        return [(name, lambda *a, p=each: of_bins(p, *a)) for name, each in POPULATIONS.items()]
    if only == "answers":
        return [("answers from a threshold on, on test", lambda *a: of_answers(POPULATIONS["2 classes, hard"], *a))]
    if only == "curve":
        return [("learning curve", of_curve)]
    if only == "learning":
        # The law takes long.
        return [
            (
                f"learning curve of heads that are trained, {name}",
                lambda n, runs, rng, w=each: of_learning(w, n, max(1, runs // 20), rng),
            )
            for name, each in WORLDS.items()
        ]
    if only == "folds":
        found = [
            (
                f"trials that are trained on {folds} folds, {name}{f', groups of {size}' if size > 1 else ''}",
                lambda *a, w=each, f=folds, s=size: of_folds(("accuracy", *OTHERS), f, s, w, *a),
            )
            for name, each in WORLDS.items()
            for folds, size in ((3, 1), (5, 1), (10, 1), (5, SIZE))
        ]
        return [
            *found,
            *(
                (
                    f"the best of the trials on 5 folds, {name}",
                    lambda n, runs, rng, w=each: of_best_on_folds(5, w, n, max(1, runs // 5), rng),
                )
                for name, each in WORLDS.items()
            ),
        ]
    if only == "neighbour":
        return [
            (f"the audit, {name}", lambda *a, w=each, s=size: of_neighbour(w, *a, s))
            for name, each in WORLDS.items()
            for size in (1, SIZE)
        ]
    if only == "seeds":
        return [("trials of three seeds", lambda *a, m=metric: of_seeds(m, *a)) for metric in OTHERS]
    if only == "winners":
        return [("the best of ten trials", lambda *a, m=metric: of_winners(m, *a)) for metric in OTHERS]
    return [("trials of sweeps", of_trials)]


KINDS = (
    "scores", "bins", "calibrated", "groups", "pairs", "abstention", "answers", "curve", "learning", "neighbour", "sweep", "folds",
    "seeds", "winners",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--only", choices=KINDS)
    parser.add_argument("--n", type=int, nargs="+", default=list(SIZES))
    arguments = parser.parse_args()
    sizes = arguments.n
    print(f"percent of intervals that hold the truth, nominally 95; {arguments.runs} runs; columns: {sizes} images")
    for kind in KINDS if arguments.only is None else (arguments.only,):
        for name, simulation in simulations(kind):
            # A promise may be kept more often than in 95%.
            limits = (0.95, 1.0) if kind == "abstention" else (LEAST, MOST)
            lines(name, simulation, sizes, arguments.runs, *limits)
    if arguments.only in (None, "sweep"):
        print("winners of sweeps whose trials are equally good: points too high, plain and corrected; percent held")
        for size, trials, alike in product((1, 5), (10, 200), (0.0, 0.8)):
            cells = []
            for n in sizes:
                swept = of_sweep(trials, alike, n, max(1, arguments.runs // 20), np.random.default_rng(n), size)
                plain, rest, held = (100 * np.mean(column) for column in zip(*swept, strict=True))
                cells.append(f"{plain:+6.1f} {rest:+6.1f} {held:6.1f} ")
            where = "in groups of 5" if size > 1 else "single images"
            print(f"  {where}, {trials:3} trials, {alike:.0%} common luck {' |'.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
