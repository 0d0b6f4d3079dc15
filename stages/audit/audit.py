"""An audit from end to end: features of one layer, and the image files where they are here → a result and its tables."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import HeadError
from stages.audit.contents import Contents
from stages.audit.copies import near_copies, unless_classes
from stages.audit.curve import described, learning_curve, power_law
from stages.audit.folds import kin
from stages.audit.labels import FOLDS, MISSING, out_of_fold, suspicions
from stages.audit.leak import leaks, with_kin_in
from stages.audit.listing import (
    Table,
    conflict_rows,
    copy_rows,
    curve_rows,
    far_rows,
    label_rows,
    listed_once,
    map_rows,
    pixel_rows,
)
from stages.audit.neighbours import nearest
from stages.audit.outliers import far_off
from stages.audit.pixels import looks
from stages.audit.projection import projection
from stages.audit.results import COLUMNS, write_audit
from stages.heads.dataset import Dataset
from stages.progress import SILENT, Progress, counted

# Rows of each list that stand in the result, for the page and for who reads it; the tables have all of them.
SHOWN = 60


@dataclass(frozen=True)
class AuditTask:
    """What is audited, and where the result goes.

    ``name`` is that of the base in the configuration, ``network`` and ``layer`` what its features are of, ``parts`` what the
    audit's key is made of. ``root`` is the data folder, or None where the images are not here; ``memo`` a file that remembers
    what was seen in their pixels.
    """

    name: str
    network: str
    layer: str
    key: str
    parts: dict[str, Any]
    folder: Path
    root: Path | None
    memo: Path


def audit(task: AuditTask, data: Dataset, progress: Progress = SILENT) -> dict[str, Any]:
    """Audit a data set, write what is found into the task's folder, and return the result.

    What cannot be done (without cleanlab, without the images, with too few of them) is left out, and ``left_out`` says why.
    Raises CacheError and DataError where the features cannot be read.
    """
    contents = Contents.read(data, task.layer)
    with progress.task("Near-copies", 1, "searches") as advance:
        found = nearest(contents.unit)
        copies = unless_classes(near_copies(contents.unit, found), contents.y[contents.first])
        together = kin(contents, copies.group)
        advance(1)
    left_out: dict[str, str] = {}
    tables: dict[str, Table] = {
        "near_copies.csv": copy_rows(contents, copies),
        "outliers.csv": [*conflict_rows(contents), *far_rows(contents, far_off(found))],
        "map.csv": [],
    }
    if copies.unclear:
        left_out["near_copies"] = f"near-copies: cannot be told from others: {copies.unclear}"
    pixels = _pixels(task, contents, tables, left_out, progress)
    labels = _labels(contents, together, tables, left_out, progress)
    curve = _curve(contents, together, tables, left_out, progress)
    points = projection(contents)
    tables["map.csv"] = map_rows(contents, points)
    result = {
        "audit": task.name,
        "key": task.key,
        "parts": task.parts,
        "base": task.network,
        "layer": task.layer,
        "classes": list(contents.classes),
        "images": len(contents.records),
        "contents": len(contents.first),
        "grouped": contents.groups is not None,
        "copies": {
            **_copies(tables["near_copies.csv"]),
            "pairs": len(copies.pairs),
            "dimension": round(copies.dimension, 3),
            "limit": round(copies.limit, 6),
        },
        "leak": {
            split: _leak(leak) | {"example": _example(split, "train", tables["near_copies.csv"])}
            for split, leak in leaks(contents, found, together).items()
        },
        "chosen_by": _chosen_by(contents, together, tables["near_copies.csv"]),
        "labels": labels,
        "outliers": _counted(tables["outliers.csv"]),
        "pixels": pixels,
        "curve": curve,
        "map": {"points": len(points.content), "explained": [round(share, 4) for share in points.explained]},
        "left_out": left_out,
    }
    write_audit(task.folder, result, tables)
    return result


def _pixels(
    task: AuditTask, contents: Contents, tables: dict[str, Table], left_out: dict[str, str], progress: Progress
) -> dict[str, int] | None:
    if task.root is None:
        left_out["pixels"] = "the images are not on this machine"
        return None
    paths = {contents.records[row].sha256: contents.records[row].path for row in contents.first}
    seen, problems = looks(paths, task.root, task.memo, progress)
    tables["outliers.csv"] = listed_once([*tables["outliers.csv"], *pixel_rows(contents, seen, problems)])
    return {"seen": len(seen), "unread": len(problems)}


def _labels(
    contents: Contents,
    together: NDArray[np.int64],
    tables: dict[str, Table],
    left_out: dict[str, str],
    progress: Progress,
) -> dict[str, Any] | None:
    tables["labels.csv"] = []
    try:
        scored = out_of_fold(contents, together, progress)
        found = suspicions(contents, scored)
    except ModuleNotFoundError as error:
        left_out["labels"] = f"{MISSING} ({error})"
    except HeadError as error:
        left_out["labels"] = f"suspicious labels: {error}"
    else:
        tables["labels.csv"] = label_rows(contents, found)
        if scored.few:
            names = ", ".join(scored.few[:5]) + (" …" if len(scored.few) > 5 else "")
            left_out["few"] = (
                f"labels of {counted(len(scored.few), 'class', 'classes')} with fewer than {FOLDS} images that are "
                f"not alike ({names})"
            )
        return {
            "suspicious": len(found),
            "C": scored.C,
            "accuracy": round(scored.accuracy, 6),
            "first": _first("labels.csv", tables),
        }
    return None


def _curve(
    contents: Contents,
    together: NDArray[np.int64],
    tables: dict[str, Table],
    left_out: dict[str, str],
    progress: Progress,
) -> dict[str, Any] | None:
    tables["learning_curve.csv"] = []
    try:
        curve = learning_curve(contents, together, progress)
    except HeadError as error:
        left_out["curve"] = f"learning curve: {error}"
        return None
    tables["learning_curve.csv"] = curve_rows(curve)
    law = power_law(curve)
    doubled = law and {
        "images": 2 * law.whole,
        "accuracy": round(law.doubled, 6),
        "low": round(law.interval[0], 6),
        "high": round(law.interval[1], 6),
        "more": round(law.more, 6),
        "more_low": round(law.more_interval[0], 6),
        "more_high": round(law.more_interval[1], 6),
    }
    return {
        "n": len(curve.kin),
        "points": [{name: round(value, 6) for name, value in row.items()} for row in described(curve)],
        "law": law and {name: round(getattr(law, name), 6) for name in ("a", "b", "c", "whole")},
        "doubled": doubled,
    }


def _first(name: str, tables: dict[str, Table]) -> list[dict[str, Any]]:
    return [dict(zip(COLUMNS[name], row, strict=True)) for row in tables[name][:SHOWN]]


def _leak(leak: Any) -> dict[str, Any]:
    def rounded(share: float | None) -> float | None:
        return None if share is None else round(share, 6)

    return {
        "n": leak.n,
        "copied": leak.copied,
        "accuracy": rounded(leak.accuracy),
        "accuracy_interval": [round(end, 6) for end in leak.interval],
        "without": rounded(leak.without),
        "without_interval": leak.without_interval and [round(end, 6) for end in leak.without_interval],
    }


def _chosen_by(contents: Contents, together: NDArray[np.int64], rows: Table) -> dict[str, Any]:
    """How many of the test images have kin in validation, which chooses heads, and none in train, of which ``leak`` tells."""
    test = contents.distinct("test")
    found = with_kin_in("validation", contents, together) & ~with_kin_in("train", contents, together)
    return {"n": len(test), "copied": int(found[test].sum()), "example": _example("test", "validation", rows)}


def _example(split: str, other: str, rows: Table) -> list[str] | None:
    """The first image of a split that has a near-copy in another, and that one."""
    each = [dict(zip(COLUMNS["near_copies.csv"], row, strict=True)) for row in rows]
    there = {row["group"]: row["path"] for row in reversed(each) if row["split"] == other}
    paths = {row["path"] for row in each if row["split"] == other}
    for row in each:
        if row["split"] == split and row["group"] in there:
            return [row["path"], row["nearest"] if row["nearest"] in paths else there[row["group"]]]
    return None


def _copies(rows: Table) -> dict[str, Any]:
    """Groups with their members, the first of them; how many there are, how many across splits and of several labels."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        each = dict(zip(COLUMNS["near_copies.csv"], row, strict=True))
        groups.setdefault(each["group"], []).append(each)
    across = [members for members in groups.values() if len({each["split"] for each in members}) > 1]
    return {
        "groups": len(groups),
        "images": len(rows),
        "across": len(across),
        "labels_differ": sum(len({each["label"] for each in members}) > 1 for members in groups.values()),
        "first": [
            {"group": name, "across": members in across, "members": members[:SHOWN], "images": len(members)}
            for name, members in list(groups.items())[:SHOWN]
        ],
    }


def _counted(rows: Table) -> dict[str, Any]:
    """How many of each problem there are, and the first of each."""
    counts = Counter[str]()
    first = []
    for row in rows:
        each = dict(zip(COLUMNS["outliers.csv"], row, strict=True))
        counts[each["problem"]] += 1
        if counts[each["problem"]] <= SHOWN:
            first.append(each)
    return {"counts": dict(counts), "first": first}
