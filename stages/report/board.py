"""The leaderboard: heads in the order of their validation scores, as rows of values to show."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from stages.heads.results import ranking
from stages.report.data import HeadSummary
from stages.report.text import settings

# Of scikit-learn's classifiers, those whose probabilities are fitted by the log loss, as those of dense heads are.
_FITTED_BY_LOG_LOSS = (
    "LogisticRegression", "LogisticRegressionCV", "MLPClassifier", "GradientBoostingClassifier",
    "HistGradientBoostingClassifier", "CalibratedClassifierCV", "GaussianProcessClassifier",
)  # fmt: skip


@dataclass(frozen=True)
class Score:
    """A head's scores on one split.

    ``chosen`` is the score that heads are ranked by. ``left`` and ``width`` place the interval on its bar, ``tick`` the
    accuracy, in percent of the bar.
    """

    n: int
    accuracy: float
    low: float
    high: float
    balanced: float | None
    chosen: float | None
    chosen_interval: tuple[float, float] | None
    log_loss: float | None
    left: float
    width: float
    tick: float

    @property
    def correct(self) -> int:
        return round(self.accuracy * self.n)


@dataclass(frozen=True)
class Row:
    """One head on the leaderboard. ``caveat`` says where probabilities come from, if not from a calibrated source; of the
    winner of a sweep, ``chosen`` says by how much the score that it was chosen by is too good, and ``among`` is its number of trials.
    """

    rank: int
    head: HeadSummary
    settings: str
    validation: Score
    test: Score | None
    caveat: str | None
    chosen: str | None = None
    among: int = 1

    @property
    def name(self) -> str:
        return self.head.name

    @property
    def result(self) -> dict[str, Any]:
        return self.head.result

    @property
    def refitted(self) -> bool:
        """Whether it was trained on validation, too, after it had been scored there."""
        return bool(self.result["spec"].get("refit"))

    @property
    def score(self) -> Score:
        """On test where there is one, else on validation."""
        return self.test or self.validation


@dataclass(frozen=True)
class Board:
    """All heads, the best first. Bars run from ``floor`` to 1."""

    rows: list[Row]
    floor: float

    @property
    def best(self) -> Row | None:
        return self.rows[0] if self.rows else None

    @property
    def among(self) -> int:
        """Among how many the best head was chosen: all heads, the winner of a sweep as many times as it had trials."""
        return sum(row.among for row in self.rows)

    @property
    def has_test(self) -> bool:
        return any(row.test for row in self.rows)

    @property
    def several_bases(self) -> bool:
        return len({row.result.get("base") for row in self.rows}) > 1

    @property
    def has_refitted(self) -> bool:
        return any(row.refitted for row in self.rows)

    @property
    def caveats(self) -> dict[str, list[str]]:
        """Names of heads by where their uncalibrated probabilities come from."""
        return _grouped((row.caveat, row.name) for row in self.rows if row.caveat)

    @property
    def warnings(self) -> dict[str, list[str]]:
        """Names of heads by what was warned of while they were trained."""
        return _grouped((text, row.name) for row in self.rows for text in row.result.get("warnings", []))

    def n(self, split: str) -> int | None:
        """Images in a split, None where heads were scored on different numbers of them."""
        found = {score.n for row in self.rows if (score := getattr(row, split))}
        return found.pop() if len(found) == 1 else None


def leaderboard(
    heads: Sequence[HeadSummary],
    metric: str = "accuracy",
    chosen: Mapping[str, str | None] = MappingProxyType({}),
    trials: Mapping[str, int] = MappingProxyType({}),
) -> Board:
    """Heads sorted by validation alone; test scores are shown and have no part in the order. ``chosen`` is said of the winners of sweeps,
    by name, which are the best of so many ``trials``.
    """
    ordered = sorted(heads, key=lambda head: ranking(head.result, metric))
    metrics = [head.result["metrics"] for head in ordered]
    lows = [m[split]["accuracy_interval"][0] for m in metrics for split in ("validation", "test") if split in m]
    floor = min(0.9, math.floor(10 * min(lows, default=0.0)) / 10)
    layers = len({tuple(head.result["layers"]) for head in heads}) > 1
    rows = []
    for rank, head in enumerate(ordered, 1):
        found = head.result["metrics"]
        test = _score(found["test"], floor, metric) if "test" in found else None
        caveat = _caveat(head.result)
        words = settings(head.result, layers)
        validation, among = _score(found["validation"], floor, metric), max(1, trials.get(head.name, 1))
        rows.append(Row(rank, head, words, validation, test, caveat, chosen.get(head.name), among))
    return Board(rows, floor)


def _caveat(result: dict[str, Any]) -> str | None:
    """Where a head's probabilities come from, where nothing in its training calibrated them."""
    source, estimator = result.get("probabilities"), result.get("spec", {}).get("estimator")
    if source in (None, "sigmoid", "softmax", "mean of heads") or (
        source == "predict_proba" and estimator in _FITTED_BY_LOG_LOSS
    ):
        return None
    return f"predict_proba of {estimator}, which is not fitted by them" if source == "predict_proba" else source


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for what, name in pairs:
        groups.setdefault(what, []).append(name)
    return groups


def _score(metrics: dict[str, Any], floor: float, metric: str) -> Score:
    low, high = metrics["accuracy_interval"]

    def place(share: float) -> float:
        return round(100 * (share - floor) / (1 - floor), 2)

    return Score(
        n=metrics["n"],
        accuracy=metrics["accuracy"],
        low=low,
        high=high,
        balanced=metrics.get("balanced_accuracy"),
        chosen=metrics.get(metric),
        chosen_interval=metrics.get(f"{metric}_interval"),
        log_loss=metrics.get("log_loss"),
        left=place(low),
        width=round(place(high) - place(low), 2),
        tick=place(metrics["accuracy"]),
    )
