"""What a trained head said of each image, read back from its ``predictions.csv``."""

import csv
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.errors import HeadError
from stages.heads.results import PREDICTION_COLUMNS, prediction_header


@dataclass(frozen=True)
class Probabilities:
    """What a head says of the images of some splits, copies with one label counted once: labels (n,) and probabilities (n, classes).

    ``calibrated`` says whether these are after the temperature, as this version writes them, or before it; those ``before`` it are
    there in any case. ``contents`` are the SHA-256 of the images.
    """

    y: NDArray[np.int64]
    p: NDArray[np.float64]
    calibrated: bool
    before: NDArray[np.float64]
    contents: list[str]


def read_probabilities(folder: Path, classes: Sequence[str], *splits: str) -> Probabilities:
    """Read ``predictions.csv`` for all probabilities on some splits. Raises HeadError for a file that is not as training writes it."""
    ids = {name: i for i, name in enumerate(classes)}
    found: dict[tuple[str, str], list[float]] = {}
    first, k = len(PREDICTION_COLUMNS), len(classes)
    with table_rows(folder / "predictions.csv", "the predictions of a head") as rows:
        header = checked_header(rows, classes)
        for row in rows:
            _, here, true, _, sha256 = checked_row(row, header, ids)
            if here in splits:
                found[sha256, true] = [float(value) for value in row[first:]]
    y = np.array([ids[true] for _, true in found], np.int64)
    p = np.array(list(found.values()), np.float64).reshape(len(y), len(header) - first)
    return Probabilities(y, p[:, :k], len(header) > first + k, p[:, -k:], [sha256 for sha256, _ in found])


def checked_header(rows: Iterator[list[str]], classes: Sequence[str]) -> list[str]:
    """The first line of ``predictions.csv``. Raises ValueError where it is not that of a head of these classes."""
    header = next(rows, [])
    if header not in (prediction_header(classes), prediction_header(classes, calibrated=False)):
        raise ValueError(f"its first line is not {', '.join(PREDICTION_COLUMNS)} and the {len(classes)} classes")
    return header


def checked_row(row: list[str], header: list[str], classes: Collection[str]) -> list[str]:
    """Path, split, label, predicted class and SHA-256 of a line. Raises ValueError for one that does not fit the first."""
    told = row[: len(PREDICTION_COLUMNS)]
    if len(row) != len(header) or told[2] not in classes or told[3] not in classes:
        raise ValueError("a line that does not fit the first")
    return told


@contextmanager
def table_rows(path: Path, what: str) -> Iterator[Iterator[list[str]]]:
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
