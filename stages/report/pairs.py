"""How sure the order of the leaderboard is: each head against the best, image by image; and how calibrated each is."""

from dataclasses import dataclass

import numpy as np

from stages.heads.metrics import mcnemar
from stages.report.board import Board, Row
from stages.report.outcomes import read_correct

# Heads that are compared with the best; further down the board nobody asks.
COMPARED = 30
LEVEL = 0.05


@dataclass(frozen=True)
class Pair:
    """A head against the best one: images that one of them alone has right, and the p-value of McNemar's test."""

    row: Row
    only_best: int
    only_other: int
    p: float


@dataclass(frozen=True)
class Pairs:
    """All comparisons with ``best`` on ``split``: heads that cannot be told from it, and the others."""

    best: Row
    split: str
    alike: list[Pair]
    different: list[Pair]


@dataclass(frozen=True)
class Calibration:
    """Expected calibration error of a head on ``split`` as trained, and at the temperature that was fitted on validation."""

    row: Row
    split: str
    temperature: float
    before: float
    after: float
    low: float
    high: float


def compare_with_best(board: Board) -> Pairs | None:
    """On test where there is one, else on validation; None where there is nothing to compare.

    Raises HeadError for predictions that cannot be read.
    """
    best, others = board.best, board.rows[1 : COMPARED + 1]
    if best is None or not others:
        return None
    split = "test" if best.test else "validation"
    right = read_correct(best.head.folder, best.result["classes"], split)
    pairs = []
    for row in others:
        other = dict(read_correct(row.head.folder, row.result["classes"], split))
        both = np.array([(correct, other.get(sha256, False)) for sha256, correct in right], bool)
        one, two = both[:, 0], both[:, 1]
        pairs.append(Pair(row, int((one & ~two).sum()), int((two & ~one).sum()), mcnemar(one, two)))
    alike = [pair for pair in pairs if pair.p >= LEVEL]
    return Pairs(best, split, alike, [pair for pair in pairs if pair.p < LEVEL])


def calibrations(board: Board) -> list[Calibration]:
    """In the order of the board; heads whose results do not tell are left out."""
    found = []
    for row in board.rows:
        split = "test" if row.test else "validation"
        metrics = row.result["metrics"][split]
        after = metrics.get("calibrated", {})
        if "ece_interval" in after:
            found.append(
                Calibration(row, split, row.result["temperature"], metrics["ece"], after["ece"], *after["ece_interval"])
            )
    return found
