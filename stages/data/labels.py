"""The CSV of labels: of file names (the layout ``csv``), or of ids, which are file names without folder and extension (``ids``)."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cache.errors import DataError
from cache.manifest import SPLITS
from stages.data.tables import name_of, rows_of
from stages.fields import did_you_mean

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val"), "validation"),
    **dict.fromkeys(("test", "testing", "test1"), "test"),
}


class Placed(NamedTuple):
    """A file's label (None: unlabelled) and the split that the layout declares for it (None: drawn)."""

    label: str | None = None
    declared: str | None = None


def has_ids(labels: Path) -> bool:
    """Whether a CSV names images by ids, as Kaggle's often do: it has a column ``id`` and none of file names."""
    try:
        with rows_of(labels) as (_, columns):
            pass
    except (OSError, DataError):
        return False  # an error when it is read
    return "id" in columns and "filename" not in columns and len(set(columns)) > 1


def placed_by_name(labels: Path, paths: Iterable[str], skipped: Iterable[str], root: Path) -> dict[str, Placed]:
    """What a CSV of file names says of each of ``paths``. Raises DataError for a name that is not among them or ``skipped``."""
    paths = list(paths)
    known = {*paths, *skipped}
    found = _read(labels, "filename", known)
    if missing := [name for name in found if name not in known]:
        raise DataError(
            f"{labels}: names {len(missing)} of {len(found)} files that are not images under {root}: {_first(missing)}; "
            "names are relative to data.root, with their extension"
        )
    return {path: found.get(path, Placed()) for path in paths}


def placed_by_id(labels: Path, paths: Iterable[str], skipped: Iterable[str], root: Path) -> dict[str, Placed]:
    """What a CSV of ids says of each of ``paths``; those in a folder of test have no label.

    Raises DataError for an id that is the name of no image, or of two.
    """
    paths, skipped = list(paths), list(skipped)
    found = _read(labels, "id", {id_of(path) or "" for path in (*paths, *skipped)})
    files: dict[str, str] = {}
    for path in (*paths, *skipped):
        name = id_of(path)
        if name in found and files.setdefault(name, path) != path:
            raise DataError(
                f"{labels}: expected one image for each id, found {files[name]} and {path} for {name}; remove one"
            )
    if missing := [name for name in found if name not in files]:
        raise DataError(
            f"{labels}: names {len(missing)} of {len(found)} ids that are the name of no image under {root} outside test/: "
            f"{_first(missing)}; an id is a file name without folder and extension"
        )
    return {path: found.get(id_of(path) or "", Placed()) for path in paths}


def id_of(path: str) -> str | None:
    """The id of an image, or None for one in a folder of test, which has no label."""
    if SPLIT_NAMES.get(path.partition("/")[0].lower()) == "test":
        return None
    return PurePosixPath(path).stem


def _read(labels: Path, key: str, known: Collection[str]) -> dict[str, Placed]:
    """Label and split by the column ``key``: that of file names, or that of ids, of which some are ``known``."""
    try:
        with rows_of(labels) as (reader, columns):
            label = _label_column(columns, key)
            if key not in columns or label is None:
                raise DataError(
                    f"{labels}: expected a first line with the columns {_columns(key)}, "
                    f"found {', '.join(columns) or 'an empty file'}"
                )
            found: dict[str, Placed] = {}
            for row in reader:
                where = f"{labels}, line {reader.line_num}"
                name = name_of(row[key], known)
                placed = Placed((row[label] or "").strip() or None, _split(where, row))
                if found.setdefault(name, placed) != placed:
                    raise DataError(f"{where}: {name} is named twice with different labels or splits; keep one line")
            return found
    except FileNotFoundError:
        raise DataError(f"{labels}: no such file, expected a CSV of {key} and label; mend data.labels") from None


def _label_column(columns: list[str], key: str) -> str | None:
    """The column of labels; beside ids it may have any name, such as ``breed``."""
    if "label" in columns or key == "filename":
        return "label" if "label" in columns else None
    return next((name for name in columns if name not in ("id", "split")), None)


def _columns(key: str) -> str:
    return f"{key}, label and optionally split" if key == "filename" else "id and that of the labels, such as id, breed"


def _split(where: str, row: Mapping[str, str | None]) -> str | None:
    value = (row.get("split") or "").strip()
    if not value:
        return None
    if value.lower() not in SPLIT_NAMES:
        raise DataError(
            f"{where}: expected a split of {', '.join(SPLITS)}, found {value!r}{did_you_mean(value, SPLITS)}"
        )
    return SPLIT_NAMES[value.lower()]


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
