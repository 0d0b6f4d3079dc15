"""Data layouts: which label and which split a file's place says it has.

| layout    | looks like                          | label from | split from          |
|-----------|-------------------------------------|------------|---------------------|
| `splits`  | `train/cats/*.jpg`, `validation/…`  | folder     | folder              |
| `classes` | `Pizza/*.jpg`, `Burger/*.jpg`       | folder     | drawn               |
| `names`   | `train/cat.0.jpg`, `test/1.jpg`     | file name  | drawn               |
| `csv`     | any folder, and a CSV of file names | CSV        | CSV column or drawn |
| `ids`     | `train/ID.jpg`, `test/ID.jpg`, and a CSV of ids | CSV | CSV column or drawn |
"""

import re
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

from cache.errors import DataError
from stages.data.labels import SPLIT_NAMES, Placed, has_ids, placed_by_id, placed_by_name
from stages.data.spec import CSV_NAME

# "cat.0.jpg", "cat_12.png", "Great Dane-7.jpg": a label, a separator, a number.
LABELLED_NAME = re.compile(r"(?P<label>.*[^\W\d_].*?)[._ -]*[._ -]\(?\d+\)?")
# Layouts whose labels stand in a CSV.
TABLES = {"csv": placed_by_name, "ids": placed_by_id}
DESCRIPTION = "train/CLASS/… with validation/ or test/, one folder per class, train/CLASS.NUMBER.jpg, or a labels.csv"


def detect(paths: Sequence[str], root: Path, labels: Path | None) -> str:
    """The layout that the image paths (relative to the root, with ``/``) look like. Raises DataError for none."""
    if labels is not None or (root / CSV_NAME).is_file():
        return "ids" if has_ids(labels or root / CSV_NAME) else "csv"
    parts = [path.split("/") for path in paths]
    tops = {p[0].lower() for p in parts if len(p) > 1}
    below_train = [p for p in parts if len(p) > 1 and SPLIT_NAMES.get(p[0].lower()) == "train"]
    split_folders = tops & SPLIT_NAMES.keys()
    if below_train and (tops == split_folders or len(split_folders) > 1):
        if any(len(p) > 2 for p in below_train):
            return "splits"
        if any(_label_of_name(p[-1]) for p in below_train):
            return "names"
    if any(len(p) == 1 and _label_of_name(p[0]) for p in parts) and not tops - SPLIT_NAMES.keys():
        return "names"
    if tops:
        if split_folders:
            raise DataError(
                f"{root}: found folders named like splits ({', '.join(sorted(split_folders))}) beside others "
                f"({', '.join(sorted(tops - split_folders)[:3]) or 'none'}); expected train/, validation/, test/ and no others, "
                'or set data.layout = "classes" if these are classes'
            )
        return "classes"
    raise DataError(
        f"{root}: expected one of the layouts {DESCRIPTION}; found {len(paths)} images that no layout labels, "
        f"such as {paths[0]}; sort them into one folder per class, or add a {CSV_NAME}"
    )


def place(
    layout: str, paths: Sequence[str], root: Path, labels: Path | None, skipped: Collection[str] = ()
) -> dict[str, Placed]:
    """Label and declared split of every image, by its path. Raises DataError where the layout does not fit the files.

    ``skipped`` are images that are there and cannot be used; a CSV may name them.
    """
    if layout in TABLES:
        return TABLES[layout](labels or root / CSV_NAME, paths, skipped, root)
    return {path: _from_place(layout, path) for path in paths}


def _from_place(layout: str, path: str) -> Placed:
    *folders, name = path.split("/")
    split = SPLIT_NAMES.get(folders[0].lower()) if folders else None
    if layout == "splits":
        return Placed(folders[1], split) if split and len(folders) > 1 else Placed()
    if layout == "classes":
        return Placed(folders[0]) if folders else Placed()
    return Placed() if split == "test" else Placed(_label_of_name(name))


def _label_of_name(name: str) -> str | None:
    match = LABELLED_NAME.fullmatch(PurePosixPath(name).stem)
    return match["label"] if match else None
