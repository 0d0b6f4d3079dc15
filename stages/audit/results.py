"""What an audit leaves behind: its folder, its key, and its result, read back without the libraries that made it.

``AUDIT_SCHEMA`` is raised by hand when an audit finds or writes something else for the same images, so that old ones are run again.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cache.errors import CacheError
from cache.files import read_sealed, seal, sha256_file, write_csv, write_text
from cache.manifest import Manifest

AUDIT_SCHEMA = 5
# The columns of each table, by its name.
COLUMNS = {
    "near_copies.csv": ("group", "path", "split", "label", "similarity", "nearest", "across"),
    "labels.csv": ("rank", "path", "split", "label", "likely", "p_label", "p_likely"),
    "outliers.csv": ("path", "split", "label", "problem", "detail"),
    "learning_curve.csv": ("share", "images", "draw", "C", "n", "accuracy", "low", "high"),
    "map.csv": ("path", "sha256", "split", "label", "x", "y"),
}
Table = Sequence[Sequence[Any]]


def audit_parts(base_key: str, manifest: Manifest) -> dict[str, Any]:
    """What the key of an audit is made of: its schema, the features, and contents, labels, splits and names of all images."""
    return {
        "schema": AUDIT_SCHEMA,
        "base": base_key,
        "rows": manifest.rows_digest,
        "names": manifest.names_digest,
    }


def write_audit(folder: Path, result: dict[str, Any], tables: Mapping[str, Table]) -> None:
    """Write the tables, and last the result, so that a folder that has one is whole; each atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").unlink(missing_ok=True)
    for name, columns in COLUMNS.items():
        write_csv(folder / name, columns, tables[name])
    result["files"] = {name: sha256_file(folder / name) for name in COLUMNS}
    write_text(folder / "result.json", seal(json.dumps(result, indent=1)) + "\n")


def read_audit(folder: Path) -> dict[str, Any] | None:
    """The result of an audit that was run and is whole, else None."""
    try:
        result = read_sealed(folder / "result.json", "the result of an audit")
    except (CacheError, OSError):
        return None
    return result if all((folder / name).exists() for name in result["files"]) else None


def read_table(folder: Path, name: str) -> list[dict[str, str]]:
    """The rows of a table, by column. Raises CacheError for a file that is not as an audit writes it."""
    path = folder / name
    try:
        with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = list(csv.reader(file, strict=True))
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise CacheError(
            f"{path}: expected a table of an audit, cannot be read ({reason}); run `make audit`"
        ) from error
    columns = COLUMNS[name]
    if not rows or tuple(rows[0]) != columns or any(len(row) != len(columns) for row in rows):
        raise CacheError(
            f"{path}: expected a table with the columns {', '.join(columns)}, found another; delete it and run `make audit`"
        )
    return [dict(zip(columns, row, strict=True)) for row in rows[1:]]
