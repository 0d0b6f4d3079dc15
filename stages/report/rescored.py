"""Heads that an earlier version scored: their scores are made anew from the predictions that they left behind."""

from dataclasses import replace
from typing import Any

import numpy as np

from stages.heads.calibration import cooled, log_probabilities
from stages.heads.metrics import CALIBRATED, scores
from stages.report.data import HeadSummary
from stages.report.outcomes import read_probabilities


def as_scored_now(head: HeadSummary) -> HeadSummary:
    """The head with the scores that this version gives; itself where it has them already. Raises HeadError.

    Probabilities in the file have six digits, so the log loss of a head that is sure of itself beyond that stays as it was trained.
    """
    metrics = head.result["metrics"]
    if "calibration_error" in metrics["validation"]:
        return head
    fresh: dict[str, Any] = {}
    for split, before in metrics.items():
        found = read_probabilities(head.folder, head.result["classes"], split)
        logs = log_probabilities(found.p)
        both = (
            scores(found.y, each, head.result["classes"], intervals=split != "train")
            for each in (logs, cooled(logs, head.result.get("temperature", 1.0)))
        )
        now, calibrated = both
        changed = {name: value for name, value in calibrated.items() if name.startswith(CALIBRATED)}
        kept = {name: before[name] for name in ("log_loss",) if name in before}
        fresh[split] = now | kept | {"copies": int(before["n"] - len(np.atleast_1d(found.y))), "calibrated": changed}
    return replace(head, result=head.result | {"metrics": fresh, "temperature": head.result.get("temperature", 1.0)})
