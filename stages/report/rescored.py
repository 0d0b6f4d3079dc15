"""Heads that an earlier version scored: their scores are made anew from the predictions that they left behind."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.heads.abstention import Confident, selective
from stages.heads.calibration import cooled, log_probabilities
from stages.heads.metrics import CALIBRATED, scores
from stages.heads.predictions import Probabilities, read_probabilities
from stages.heads.scored import SCORING
from stages.report.data import HeadSummary

# By how much a score from the probabilities in the file may differ from the stored one: these have six digits.
SAME = 1e-3


def as_scored_now(head: HeadSummary, group_of: Mapping[str, str]) -> HeadSummary:
    """The head with the scores that this version gives; itself where it has them already. ``group_of`` has the group of the contents
    that are in one. Raises HeadError.

    Scores that are stored stay, as they were computed with all digits. Their intervals are those of today, except where the digits
    in the file do not give the score: for the log loss of a head that is sure of itself beyond them.
    """
    if head.result.get("scoring", 1) == SCORING:
        return head
    t = head.result.get("temperature", 1.0)
    metrics, confident = {}, {}
    for split, before in head.result["metrics"].items():
        found = read_probabilities(head.folder, head.result["classes"], split)
        logs = log_probabilities(found.before)
        groups = _groups(found, group_of) if group_of else None
        now, calibrated = (
            scores(found.y, each, head.result["classes"], intervals=split != "train", groups=groups)
            for each in (logs, cooled(logs, t))
        )
        after = {name: value for name, value in calibrated.items() if name.startswith(CALIBRATED)}
        copies = before.get("copies", before["n"] - len(found.y))
        metrics[split] = _renewed(before, now | {"copies": int(copies), "calibrated": after})
        p = np.exp(cooled(logs, t))
        confident[split] = Confident(p.max(axis=1), p.argmax(axis=1) == found.y, groups)
    fresh: dict[str, Any] = {"metrics": metrics, "temperature": t, "scoring": SCORING}
    if group_of and "abstention" in head.result:
        fresh["abstention"] = selective({name: each for name, each in confident.items() if name != "train"})
    return replace(head, result=head.result | fresh)


def _groups(found: Probabilities, group_of: Mapping[str, str]) -> NDArray[np.int64]:
    """The group of each image (n,), one of its own for an image in none."""
    names = [(sha256 in group_of, group_of.get(sha256, sha256)) for sha256 in found.contents]
    ids = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return np.array([ids[name] for name in names], np.int64)


def _renewed(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of ``now``, those that were stored as they were; how many images tell is as it is now."""
    out = dict(now)
    for name, value in before.items():
        if isinstance(value, Mapping) and name in now:
            out[name] = _renewed(value, now[name])
        elif name != "design_effect" and isinstance(value, float) and isinstance(now.get(name), float):
            out[name] = value
            if abs(value - now[name]) > SAME * max(1.0, abs(value)) and f"{name}_interval" in before:
                out[f"{name}_interval"] = before[f"{name}_interval"]
    return out
