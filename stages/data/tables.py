"""CSV files beside the images that say something about them: read with the line that each row stands in, for errors."""

import csv
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

from cache.errors import DataError
from stages.fields import did_you_mean


@contextmanager
def rows_of(path: Path) -> Iterator["tuple[csv.DictReader[str], list[str]]"]:
    """The rows of a CSV by its columns, whose names are in lower case, and these. Raises OSError, and DataError where it is no CSV."""
    with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        # Strict, as else a quotation mark that is not closed makes one field of all that follows it.
        reader = csv.DictReader(file, strict=True)
        try:
            reader.fieldnames = columns = [name.strip().lower() for name in reader.fieldnames or []]
            yield reader, columns
        except csv.Error as error:
            raise DataError(
                f"{path}: expected a CSV, found {error} in the row that begins at line {reader.line_num + 1}; "
                "look for a quotation mark that is not closed"
            ) from None


def read_table(
    path: Path, columns: Sequence[str], option: str, known: Collection[str]
) -> Iterator[tuple[str, list[str]]]:
    """Each row of a CSV: where it stands, and its values in the order of ``columns``, without spaces around them.

    The first of the columns is a file name relative to the data root, one of the ``known``, where spaces may be part of it.
    ``option`` of ``[data]`` names the file. Raises DataError where there is no such file, a column is not there, a value is left
    out, or a file is named twice with different values.
    """
    try:
        with rows_of(path) as (reader, there):
            if not set(columns) <= set(there):
                raise DataError(
                    f"{path}: expected a first line with the columns {' and '.join(columns)}, "
                    f"found {', '.join(there) or 'an empty file'}; mend that line"
                )
            found: dict[str, list[str]] = {}
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                values = [name_of(row[columns[0]], known), *((row[name] or "").strip() for name in columns[1:])]
                for name, value in zip(columns, values, strict=True):
                    if not value:
                        raise DataError(f"{where}: expected a {name}, found none; fill it in, or remove the line")
                if found.setdefault(values[0], values) != values:
                    raise DataError(
                        f"{where}: expected each {columns[0]} once, found {values[0]} again with another {columns[1]}; keep one line"
                    )
                yield where, values
    except OSError as error:
        raise DataError(
            f"{path}: expected a CSV of {' and '.join(columns)}, found none that can be read ({error.strerror}); mend data.{option}"
        ) from None


def name_of(value: str | None, known: Collection[str]) -> str:
    """The file name that a CSV means: as it stands there where such a file is ``known``, else without spaces around it."""
    exact, bare = (PurePosixPath(each).as_posix() if each else "" for each in (value or "", (value or "").strip()))
    return exact if exact in known else bare


def read_column(path: Path, column: str, known: Collection[str], key: str = "filename") -> dict[str, str]:
    """A column of the CSV of labels by the file name of each row, or another ``key``, one of the ``known``; without rows that have no
    value there.

    Raises DataError where there is no such file or column, or a file is named twice with different values.
    """
    found: dict[str, str] = {}
    try:
        with rows_of(path) as (reader, names):
            if not {key, column.lower()} <= set(names):
                listed = ", ".join(names) or "an empty file"
                raise DataError(
                    f"{path}: expected a column {column!r}, found {listed}{did_you_mean(column, names)}; mend data.group"
                )
            for row in reader:
                name, value = name_of(row[key], known), (row[column.lower()] or "").strip()
                if value and found.setdefault(name, value) != value:
                    raise DataError(
                        f"{path}, line {reader.line_num}: expected one {column} for each file, found another for {name}; keep one"
                    )
    except OSError as error:
        raise DataError(
            f"{path}: expected a CSV with a column {column!r}, found none that can be read ({error.strerror}); mend data.group"
        ) from None
    return found


def unknown(where: str, what: str, name: str, known: Iterable[str], remedy: str) -> DataError:
    """The error of a name that is not among the known ones, with the nearest of those."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return DataError(
        f"{where}: expected {what}, found {name!r}{f' (the nearest is {close[0]!r})' if close else ''}; {remedy}"
    )
