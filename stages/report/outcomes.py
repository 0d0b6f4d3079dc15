"""What heads left behind, read back: the history of their training, and what they predicted on one split."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cache.manifest import Manifest
from stages.heads.predictions import checked_header, checked_row, table_rows
from stages.heads.results import PREDICTION_COLUMNS

_MEASURES = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy")


@dataclass(frozen=True)
class Mistake:
    """An image whose predicted class is not its label, with the probability of the predicted class.

    ``path`` is where the image lies now; it may have been renamed since the head was trained. ``copies`` are the other files of the
    split with its content and label: they are one image, as in the scores.
    """

    path: str
    true: str
    predicted: str
    probability: float
    copies: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """Predictions of a head on a split: images by (true, predicted), and its mistakes, the most confident first."""

    split: str
    counts: Counter[tuple[str, str]]
    mistakes: list[Mistake]

    @property
    def n(self) -> int:
        return self.counts.total()


@dataclass(frozen=True, slots=True)
class _Prediction:
    path: str
    true: str
    predicted: str
    sha256: str
    probability: float


def read_outcome(folder: Path, manifest: Manifest, classes: Sequence[str], split: str) -> Outcome:
    """What ``predictions.csv`` says of a split, with the names that the manifest has for the images now.

    Raises HeadError for a file that is not as training writes it.
    """
    rows = _read_predictions(folder / "predictions.csv", classes, split)
    paths = _current_paths(rows, manifest, split)
    # Copies with one label are one image, as in the scores.
    wrong: defaultdict[tuple[str, str], list[tuple[str, _Prediction]]] = defaultdict(list)
    for path, row in sorted(zip(paths, rows, strict=True), key=lambda each: each[0]):
        if row.true != row.predicted:
            wrong[row.sha256, row.true].append((path, row))
    mistakes = [
        Mistake(path, row.true, row.predicted, row.probability, tuple(copies))
        for (path, *copies), row in ((dict.fromkeys(path for path, _ in each), each[0][1]) for each in wrong.values())
    ]
    counts = Counter({(row.sha256, row.true): (row.true, row.predicted) for row in rows}.values())
    return Outcome(split, counts, sorted(mistakes, key=lambda m: (-m.probability, m.path)))


def read_correct(folder: Path, classes: Sequence[str], split: str) -> dict[tuple[str, str], bool]:
    """For each image of a split, by its content (SHA-256) and label, whether the head has it right. Raises HeadError.

    Copies with one label are one image; those with two labels are two, of which no head has both right.
    """
    rows = _read_predictions(folder / "predictions.csv", classes, split)
    return {(row.sha256, row.true): row.true == row.predicted for row in rows}


def _read_predictions(path: Path, classes: Sequence[str], split: str) -> list[_Prediction]:
    column = {name: len(PREDICTION_COLUMNS) + i for i, name in enumerate(classes)}
    out = []
    with table_rows(path, "the predictions of a head") as rows:
        header = checked_header(rows, classes)
        for row in rows:
            name, found, true, predicted, sha256 = checked_row(row, header, column)
            if found == split:
                out.append(_Prediction(name, true, predicted, sha256, float(row[column[predicted]])))
    return out


def _current_paths(rows: Sequence[_Prediction], manifest: Manifest, split: str) -> list[str]:
    """Where the images of a split lie now: a head is not trained again when a file is renamed within its class.

    Copies of one content are told apart: each row whose file is gone gets one that no other row names.
    """
    there = {(record.path, record.sha256) for record in manifest.records}
    kept = {row.path for row in rows if (row.path, row.sha256) in there}
    renamed: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for record in reversed(manifest.records):
        if record.split == split and record.path not in kept:
            renamed[record.sha256, record.label].append(record.path)

    def current(row: _Prediction) -> str:
        if (row.path, row.sha256) in there:
            return row.path
        if paths := renamed[row.sha256, row.true]:
            return paths.pop()
        record = manifest.by_digest.get(row.sha256)
        return record.path if record else row.path

    return [current(row) for row in rows]


def read_history(folder: Path) -> dict[str, list[float]]:
    """Loss and accuracy by epoch, the columns of ``history.csv``. Raises HeadError for a file that is not that."""
    with table_rows(folder / "history.csv", "the history of a head") as rows:
        header = next(rows, [])
        table = [[float(value) for value in row] for row in rows]
        missing = [name for name in _MEASURES if name not in header]
        if missing or not table or any(len(row) != len(header) for row in table):
            raise ValueError(f"no column {missing[0]}" if missing else "no lines, or lines of different lengths")
        return {name: [row[i] for row in table] for i, name in enumerate(header)}
