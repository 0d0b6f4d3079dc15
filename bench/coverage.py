"""How often do the 95% intervals of the report hold the truth? Simulated heads whose true scores are known.

    python -m bench.coverage [--runs 1000] [--only scores|pairs|sweep]

Images are drawn from classes that overlap (normal distributions around the corners of a simplex), heads are the true class
probabilities, or these made too sure of themselves. The truth is that of a million images. For each kind of interval, population and
number of images the share of samples whose interval holds the truth is printed; "none" where so few images give no interval.

A sweep's winner is chosen among trials that are all equally good: how much too high its score is, in points, and what is left of that
after the correction (a tenth of the runs), of single images and of groups of five that are right or wrong together.
"""

import argparse
from collections import defaultdict
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.heads.calibration import log_softmax
from stages.heads.intervals import paired_difference
from stages.heads.metrics import scores
from stages.sweeps.optimism import corrected
from stages.training.outcomes import Outcomes

SIZES = (20, 100, 1000)
MANY = 1_000_000


class Population(NamedTuple):
    """How far classes stand apart, how frequent each is, and by what the head multiplies the true logits."""

    apart: float
    frequencies: tuple[float, ...]
    sharpness: float = 1.0

    def draw(self, n: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Labels (n,) and the head's log-probabilities (n, classes)."""
        prior = np.array(self.frequencies) / sum(self.frequencies)
        y = rng.choice(len(prior), n, p=prior)
        x = rng.normal(size=(n, len(prior)))
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


def flat(found: dict[str, Any], last: str) -> dict[str, Any]:
    """The scores with those of the last class beside them."""
    return found | {f"{name} of a class": value for name, value in found["per_class"][last].items()}


def of_scores(population: Population, n: int, runs: int, rng: np.random.Generator) -> dict[str, list[bool | None]]:
    """Whether each sample's interval holds the truth, by score; None where there is no interval."""
    classes = [str(i) for i in range(len(population.frequencies))]
    truth = flat(scores(*population.draw(MANY, rng), classes), classes[-1])
    held: dict[str, list[bool | None]] = defaultdict(list)
    for _ in range(runs):
        found = flat(scores(*population.draw(n, rng), classes, intervals=True), classes[-1])
        for name, expected in truth.items():
            key = name.replace(" of", "_interval of") if " of" in name else f"{name}_interval"
            if key in found:
                interval = found[key]
                held[name].append(None if interval is None else bool(interval[0] <= expected <= interval[1]))
    return held


def of_pairs(n: int, runs: int, rng: np.random.Generator) -> dict[str, list[bool | None]]:
    """The same of the difference between two heads on the same images, of which the second is as good, or worse."""
    held: dict[str, list[bool | None]] = defaultdict(list)
    for worse in (0.0, 0.05, 0.15):
        for _ in range(runs):
            first = rng.random(n) < 0.9
            # Both have the same luck with most images.
            second = np.where(rng.random(n) < 0.8, first, rng.random(n) < 0.9) & (rng.random(n) >= worse)
            low, high = paired_difference(first, second).interval
            held[f"difference {0.9 * worse:.3f}"].append(bool(low <= 0.9 * worse <= high))
    return held


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


def told(held: list[bool | None]) -> str:
    """The share of intervals that hold the truth, of those there are."""
    there = [each for each in held if each is not None]
    return f"{100 * np.mean(there):6.1f}" if len(there) > len(held) / 10 else "  none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--only", choices=("scores", "pairs", "sweep"))
    arguments = parser.parse_args()
    print(f"percent of intervals that hold the truth, nominally 95; {arguments.runs} runs; columns: {SIZES} images")
    if arguments.only in (None, "scores"):
        for name, population in POPULATIONS.items():
            print(name)
            found = [of_scores(population, n, arguments.runs, np.random.default_rng(n)) for n in SIZES]
            for score in found[0]:
                print(f"  {score:28}{''.join(told(each[score]) for each in found)}", flush=True)
    if arguments.only in (None, "pairs"):
        print("two heads on the same images")
        pairs = [of_pairs(n, arguments.runs, np.random.default_rng(n)) for n in SIZES]
        for kind in pairs[0]:
            print(f"  {kind:28}{''.join(told(each[kind]) for each in pairs)}", flush=True)
    if arguments.only in (None, "sweep"):
        print("winners of sweeps whose trials are equally good: points too high, plain and corrected; percent held")
        for size, trials, alike in product((1, 5), (10, 200), (0.0, 0.8)):
            cells = []
            for n in SIZES:
                swept = of_sweep(trials, alike, n, max(1, arguments.runs // 10), np.random.default_rng(n), size)
                plain, rest, held = (100 * np.mean(column) for column in zip(*swept, strict=True))
                cells.append(f"{plain:+6.1f} {rest:+6.1f} {held:6.1f} ")
            where = "in groups of 5" if size > 1 else "single images"
            print(f"  {where}, {trials:3} trials, {alike:.0%} common luck {' |'.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
