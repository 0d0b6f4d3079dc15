"""Predictions as a CSV file that a competition takes: the probability of each class, or a label."""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cache.errors import DataError
from cache.files import write_csv
from stages.fields import did_you_mean
from stages.predict.predict import Prediction
from stages.progress import counted

SAMPLE = "sample_submission.csv"


@dataclass(frozen=True)
class Form:
    """The columns of a submission: an id, and ``classes`` with their probabilities, or a single label where there are none.

    ``ids`` are those that the sample has, empty where there is no sample.
    """

    header: tuple[str, ...] = ("id", "label")
    classes: tuple[str, ...] = ()
    ids: frozenset[str] = frozenset()


def form_of(layout: str, root: Path, classes: Sequence[str]) -> Form:
    """The form that the data ask for: of the layout ``ids`` a column for each class, in the order of the sample beside the images.

    Raises DataError for a sample with other columns.
    """
    if layout != "ids":
        return Form()
    sample = root / SAMPLE
    try:
        with open(sample, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            rows = csv.reader(file, strict=True)
            header = tuple(next(rows, []))
            ids = frozenset(row[0] for row in rows if row)
    except FileNotFoundError:
        return Form(("id", *classes), tuple(classes))
    except OSError as error:
        raise DataError(f"{sample}: cannot be read ({error.strerror}); mend or remove it") from None
    except csv.Error as error:
        raise DataError(f"{sample}: cannot be read ({error}); mend or remove it") from None
    columns = header[1:]
    if len(columns) == 1 and columns[0] not in classes:
        return Form(header, (), ids)
    if strange := [name for name in columns if name not in classes]:
        raise DataError(
            f"{sample}: expected columns named like the {len(classes)} classes, found {strange[0]!r}{did_you_mean(strange[0], classes)}; "
            "mend or remove it"
        )
    if absent := [name for name in classes if name not in columns]:
        raise DataError(
            f"{sample}: expected a column for each of the {len(classes)} classes, found none for {absent[0]!r}; mend or remove it"
        )
    return Form(header, columns, ids)


def write_submission(path: Path, predictions: Sequence[Prediction], form: Form) -> list[str]:
    """Write a line for each prediction, in the order of the ids; what is to be said about it.

    An id is the file's stem, or its whole path where two files share a stem. Ids that are all numbers are ordered as
    numbers, as the cats-and-dogs competition wants them. Files of which the head is not sure have no line. Files that could not be
    read have none either where labels are written; in columns of classes all of their probabilities are the same, as a competition
    refuses a file that lacks an id.
    """
    kept = [p for p in predictions if (p.reason and form.classes) or (not p.reason and p.sure)]
    stems = Counter(p.path.stem for p in kept)
    rows = [(p.path.stem if stems[p.path.stem] == 1 else str(p.path), *_values(p, form)) for p in kept]
    numbers = all(row[0].isdecimal() for row in rows)
    rows.sort(key=lambda row: (int(row[0]) if numbers else 0, row[0]))
    write_csv(path, form.header, rows)
    lines = [f"{path}: {len(rows)} of {len(predictions)} predictions written"]
    if unread := sum(bool(p.reason) for p in kept):
        lines.append(
            f"{path}: {counted(unread, 'file')} could not be read: all classes have the same probability there"
        )
    return lines + (_differences(path, {row[0] for row in rows}, form) if form.ids else [])


def _values(prediction: Prediction, form: Form) -> list[str]:
    if not form.classes:
        return [f"{prediction.probabilities[1]:.6f}" if len(prediction.classes) == 2 else prediction.label]
    if prediction.reason:
        return [f"{1 / len(form.classes):.9g}"] * len(form.classes)
    of_class = dict(zip(prediction.classes, prediction.probabilities, strict=True))
    # Not rounded to so many decimals: a small probability that becomes 0 costs much in a log loss.
    return [f"{of_class[name]:.9g}" for name in form.classes]


def _differences(path: Path, ids: set[str], form: Form) -> list[str]:
    """A warning where the ids are not those of the sample, as the competition would refuse the file."""
    told = []
    for others, where in ((form.ids - ids, f"of {SAMPLE} missing"), (ids - form.ids, f"not in {SAMPLE}")):
        if others:
            told.append(f"{counted(len(others), 'id')} {where}, such as {min(others)}")
    return [f"{path}: warning: {'; '.join(told)}; a competition may refuse the file"] if told else []
