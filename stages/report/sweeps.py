"""The sweeps: how their trials were scored, which came to nothing, and what became of the others."""

from dataclasses import dataclass
from typing import Any

from stages.heads.results import trials_compared
from stages.heads.scored import in_words
from stages.progress import counted
from stages.report.text import NONE, decimal, interval, percent, points

FAILURES_SHOWN = 5


@dataclass(frozen=True)
class SweepSection:
    """A sweep's ``result.json`` and what the page says of it beside that.

    ``folds`` is None where trials are scored on the validation split; ``finished`` trials were trained to their end and came
    to something; ``failures`` are the first of the ``failed``.
    """

    result: dict[str, Any]
    folds: int | None
    repeats: int
    finished: int
    failed: int
    failures: list[dict[str, Any]]

    @property
    def too_good(self) -> str | None:
        """As the function of this name."""
        return too_good(self.result)

    @property
    def metric(self) -> str:
        """What ranks the trials, in words."""
        return in_words(_metric(self.result))

    def shown(self, value: float | None) -> str:
        """A value of that score."""
        return decimal(value) if _metric(self.result) == "log_loss" else percent(value)

    def around(self, ends: list[float] | None) -> str:
        """An interval of that score."""
        if ends is None:
            return NONE
        low, high = ends
        return f"{low:.3f}–{high:.3f}" if _metric(self.result) == "log_loss" else interval(low, high)


def describe_sweep(result: dict[str, Any]) -> SweepSection:
    """A sweep as the page shows it."""
    spec, failures = result["parts"]["sweep"], result.get("failures", [])
    return SweepSection(
        result=result,
        folds=spec["cv"],
        repeats=spec["repeats"],
        finished=result["complete"],
        failed=len(failures),
        failures=failures[:FAILURES_SHOWN],
    )


def too_good(result: dict[str, Any]) -> str | None:
    """By how much the winner's score is too good, in words; None where it was not chosen among others."""
    among = trials_compared(result)
    if among < 2:
        return None
    optimism, loss = result.get("optimism"), _metric(result) == "log_loss"
    words = f"chosen among {counted(among, 'trial')}"
    spec = result["parts"]["sweep"]
    where = "" if spec["cv"] is None else " on the folds"
    # Beside it on the board stands the score of one seed.
    where += f" as the mean of {spec['repeats']} seeds" if spec["repeats"] > 1 else ""
    way = "low" if loss else "high"
    if optimism is None:
        return f"{words}: too {way}{where}, by how much is not known"
    if optimism < 0.0005:
        return f"{words}: hardly too {way}{where}"
    by = f"{optimism:.3f}" if loss else f"{points(optimism)} points"
    return f"{words}: about {by} too {way}{where}"


def _metric(result: dict[str, Any]) -> str:
    return str(result["parts"].get("metric", "accuracy"))
