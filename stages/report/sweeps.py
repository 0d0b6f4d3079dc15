"""The sweeps: how their trials were scored, which came to nothing, and what became of the others."""

from dataclasses import dataclass
from typing import Any

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
