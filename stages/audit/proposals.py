"""What an audit proposes, as files that the user edits and names in ``[data]``: groups of near-copies, corrected labels."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from cache.errors import DataError
from cache.files import write_text
from cache.manifest import Manifest
from stages.audit.results import read_table
from stages.data.groups import Union

GROUP_COLUMNS = ("filename", "group")
CORRECTION_COLUMNS = ("path", "label")


def write_groups(folder: Path, path: Path, manifest: Manifest) -> int:
    """Write the groups of near-copies to ``path``, a line for each image in one; returns how many images.

    The groups of ``[data] group`` are in it as well, as the file takes their place: near-copies join them, under the name that is first
    of theirs, and otherwise they keep theirs, so that they stay in their splits. File names are relative to the data folder, as in the
    manifest. Raises DataError where another file is there already.
    """
    joined = Union()
    for row in read_table(folder, "near_copies.csv"):
        joined.join(("file", row["path"]), ("near", row["group"]))
    for record, name in zip(manifest.records, manifest.groups, strict=False):
        if name:
            joined.join(("file", record.path), ("group", name))
    rows = []
    for members in joined.sets().values():
        _, name = min(each for each in members if each[0] != "file")  # those that the user named come first
        rows += [(path, name) for kind, path in members if kind == "file"]
    _write(path, GROUP_COLUMNS, sorted(rows))
    return len(rows)


def write_corrections(folder: Path, path: Path) -> int:
    """Write the suspicious labels of train to ``path``, each with the likely label; returns how many images.

    Those of validation and test stay: a head on the same features would correct the labels that such heads are scored on.
    Raises DataError where another file is there already.
    """
    rows = [(row["path"], row["likely"]) for row in read_table(folder, "labels.csv") if row["split"] == "train"]
    _write(path, CORRECTION_COLUMNS, rows)
    return len(rows)


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    # What is there may have been edited by hand, which took longer than the audit did.
    if path.exists() and path.read_bytes() != text.getvalue().encode("utf-8", "surrogateescape"):
        raise DataError(
            f"{path}: expected no file, found another one, which is left alone; name a new file, or move it"
        )
    write_text(path, text.getvalue())
