"""How sure the order of the leaderboard is: each head against the best, image by image."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stages.heads.intervals import holm, paired_difference
from stages.report.board import Board, Row
from stages.report.outcomes import read_correct

# Heads that are compared with the best; further down the board nobody asks.
COMPARED = 30
LEVEL = 0.05


@dataclass(frozen=True)
class Pair:
    """A head against the best one: how much more accurate the best is, with the 95% interval of this difference, images that one
    of them alone has right, and the p-value of McNemar's test, corrected for the number of heads (Holm).
    """

    row: Row
    difference: float
    low: float
    high: float
    only_best: int
    only_other: int
    p: float

    @property
    def told_apart(self) -> bool:
        """Whether the test finds a difference."""
        return self.p < LEVEL


@dataclass(frozen=True)
class Pairs:
    """All comparisons with ``best`` on the ``n`` images of ``split``; of ``others`` heads on the board the first are compared."""

    best: Row
    split: str
    n: int
    pairs: list[Pair]
    others: int


def compare_with_best(board: Board, group_of: Mapping[str, str]) -> Pairs | None:
    """On test where there is one, else on validation; None where there is nothing to compare. ``group_of`` has the group of the
    contents that are in one.

    Raises HeadError for predictions that cannot be read.
    """
    best, others = board.best, board.rows[1 : COMPARED + 1]
    if best is None or not others:
        return None
    split = "test" if best.test else "validation"
    right = read_correct(best.head.folder, best.result["classes"], split)
    ids = {name: i for i, name in enumerate(dict.fromkeys(group_of.get(sha256, (sha256,)) for sha256, _ in right))}
    found, differences = [], []
    for row in others:
        other = read_correct(row.head.folder, row.result["classes"], split)
        images = [image for image in right if image in other]
        one, two = (np.array([each[image] for image in images], bool) for each in (right, other))
        groups = (
            np.array([ids[group_of.get(sha256, (sha256,))] for sha256, _ in images], np.int64) if group_of else None
        )
        found.append((row, one, two))
        differences.append(paired_difference(one, two, groups))
    corrected = holm([each.p for each in differences])
    pairs = [
        Pair(row, each.value, *each.interval, int((one & ~two).sum()), int((two & ~one).sum()), p)
        for (row, one, two), each, p in zip(found, differences, corrected, strict=True)
    ]
    return Pairs(best, split, len(right), pairs, len(board.rows) - 1)
