"""What heads left behind, read back: the history of their training, and what they predicted on one split."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cache.errors import HeadError

_COLUMNS = ["path", "split", "true", "predicted"]
_MEASURES = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy")


@dataclass(frozen=True)
class Mistake:
    """An image whose predicted class is not its label, with the probability of the predicted class."""

    path: str
    true: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class Outcome:
    """Predictions of a head on a split: images by (true, predicted), and its mistakes, the most confident first."""

    split: str
    counts: Counter[tuple[str, str]]
    mistakes: list[Mistake]

    @property
    def n(self) -> int:
        return self.counts.total()


def read_outcome(folder: Path, classes: Sequence[str], split: str) -> Outcome:
    """What ``predictions.csv`` says of a split. Raises HeadError for a file that is not as training writes it."""
    column = {name: len(_COLUMNS) + i for i, name in enumerate(classes)}
    header = [*_COLUMNS, *(f"p_{name}" for name in classes)]
    counts: Counter[tuple[str, str]] = Counter()
    mistakes = []
    with _rows(folder / "predictions.csv", "the predictions of a head") as rows:
        if next(rows, None) != header:
            raise ValueError(f"its first line is not path, split, true, predicted and the {len(classes)} classes")
        for row in rows:
            path, found, true, predicted = row[:4]
            if len(row) != len(header) or true not in column or predicted not in column:
                raise ValueError("a line that does not fit the first")
            if found != split:
                continue
            counts[true, predicted] += 1
            if true != predicted:
                mistakes.append(Mistake(path, true, predicted, float(row[column[predicted]])))
    return Outcome(split, counts, sorted(mistakes, key=lambda m: (-m.probability, m.path)))


def read_history(folder: Path) -> dict[str, list[float]]:
    """Loss and accuracy by epoch, the columns of ``history.csv``. Raises HeadError for a file that is not that."""
    with _rows(folder / "history.csv", "the history of a head") as rows:
        header = next(rows, [])
        table = [[float(value) for value in row] for row in rows]
        missing = [name for name in _MEASURES if name not in header]
        if missing or not table or any(len(row) != len(header) for row in table):
            raise ValueError(f"no column {missing[0]}" if missing else "no lines, or lines of different lengths")
        return {name: [row[i] for row in table] for i, name in enumerate(header)}


@contextmanager
def _rows(path: Path, what: str) -> Iterator[Iterator[list[str]]]:
    """The lines of a CSV; whatever is wrong with it becomes one HeadError."""
    try:
        with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            yield csv.reader(file, strict=True)
    except OSError as error:
        raise HeadError(f"{path}: expected {what}, cannot be read ({error.strerror}); run `make heads`") from error
    except (ValueError, csv.Error) as error:
        reason = " ".join(str(error).split())
        raise HeadError(
            f"{path}: expected {what}, found a damaged file ({reason}); delete it and run `make heads`"
        ) from error
