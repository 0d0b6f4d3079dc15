"""What was found, as the rows of tables; names are those of the files, numbers are rounded, so that the same data give the same bytes."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stages.audit.contents import Contents
from stages.audit.copies import Copies
from stages.audit.curve import Curve
from stages.audit.labels import Suspicion
from stages.audit.leak import accuracy_interval
from stages.audit.outliers import Far
from stages.audit.pixels import PROBLEMS, Look, problem
from stages.audit.projection import Map

Table = list[list[Any]]
FAR = "far from all others"
# Order of the splits in a group: train first, for what is copied from there.
_ORDER = {"train": 0, "validation": 1, "test": 2}


def copy_rows(contents: Contents, copies: Copies) -> Table:
    """A row for each file in a group of near-copies: groups across splits first, then the nearest first.

    A group is named by the first digits of its least digest, so that it keeps its name when images are added or renamed. Files
    with the same content are in it, each with its name.
    """
    partner = _partners(contents, copies)
    files = defaultdict(list)
    for row, content in enumerate(contents.of):
        if copies.group[content] >= 0:
            files[int(copies.group[content])].append(row)
    groups = []
    for rows in files.values():
        name = min(contents.records[row].sha256 for row in rows)[:12]
        across = len({contents.records[row].split for row in rows}) > 1
        best = max(partner[int(contents.of[row])][0] for row in rows)
        groups.append((not across, -best, name, rows))
    out = []
    for inside, _, name, rows in sorted(groups):
        for row in sorted(rows, key=lambda r: (_ORDER[contents.records[r].split], contents.records[r].path)):
            record = contents.records[row]
            similarity, other = partner[int(contents.of[row])]
            near = contents.records[contents.first[other]].path
            whether = "no" if inside else "yes"
            out.append([name, record.path, record.split, record.label, f"{similarity:.6f}", near, whether])
    return out


def _partners(contents: Contents, copies: Copies) -> dict[int, tuple[float, int]]:
    """For each content in a group the nearest of the others there: their cosine similarity, and its position."""
    from scipy.spatial.distance import pdist, squareform

    found: dict[int, tuple[float, int]] = {}
    inside = np.flatnonzero(copies.group >= 0)
    ordered = inside[np.argsort(copies.group[inside], kind="stable")]
    for members in np.split(ordered, np.flatnonzero(np.diff(copies.group[ordered])) + 1):
        # Not by products: of features that are zero everywhere, the cosine of two is none, and their distance 0.
        cosine = 1 - squareform(pdist(contents.unit[members].astype(np.float64), "sqeuclidean")) / 2
        np.fill_diagonal(cosine, -2)
        for mine, other in zip(range(len(members)), cosine.argmax(axis=1) if len(members) else (), strict=True):
            found[int(members[mine])] = (float(cosine[mine, other]), int(members[other]))
    return found


def label_rows(contents: Contents, found: Sequence[Suspicion]) -> Table:
    """A row for each suspicious label, the most suspicious first."""
    out = []
    for rank, each in enumerate(found, 1):
        record = contents.records[each.row]
        likely = contents.classes[each.likely]
        p = [f"{each.p_label:.6f}", f"{each.p_likely:.6f}"]
        out.append([rank, record.path, record.split, record.label, likely, *p])
    return out


def conflict_rows(contents: Contents) -> Table:
    """A row for each file whose content has another label elsewhere."""
    out = []
    labels = defaultdict(set)
    for row, content in enumerate(contents.of):
        labels[int(content)].add(contents.records[row].label)
    for row, content in enumerate(contents.of):
        record = contents.records[row]
        others = sorted(labels[int(content)] - {record.label})
        if others:
            out.append([record.path, record.split, record.label, "conflicting labels", f"also {', '.join(others)}"])
    return out


def far_rows(contents: Contents, found: Sequence[Far]) -> Table:
    """A row for each file that is far from all others, the farthest first."""
    return [_row(contents, each.content, FAR, f"{each.times:.2f} times the usual distance") for each in found]


def pixel_rows(contents: Contents, seen: Mapping[str, Look], unread: Mapping[str, str]) -> Table:
    """A row for each file whose pixels tell something, and for each that could not be looked at, in the order of their names."""
    out = []
    usual = float(np.median([min(each[:2]) for each in seen.values()])) if seen else 0.0
    for content in range(len(contents.first)):
        digest = contents.digest(content)
        if digest in unread:
            out.append(_row(contents, content, "not looked at", unread[digest]))
        elif digest in seen and (told := problem(seen[digest], usual)):
            out.append(_row(contents, content, *told))
    return sorted(out, key=lambda row: (row[3], row[0]))


def listed_once(rows: Table) -> Table:
    """The rows of outliers, without those of images that are far from all others because of their pixels, which say so."""
    both = {row[0] for row in rows if row[3] == FAR} & {row[0] for row in rows if row[3] in PROBLEMS}
    kept = [row for row in rows if row[3] != FAR or row[0] not in both]
    return [[*row[:4], f"{row[4]}; {FAR}"] if row[3] in PROBLEMS and row[0] in both else row for row in kept]


def _row(contents: Contents, content: int, what: str, detail: str) -> list[Any]:
    record = contents.records[contents.first[content]]
    return [record.path, record.split, record.label, what, detail]


def curve_rows(curve: Curve) -> Table:
    """A row for each part of train that a head was fitted on."""
    out = []
    for point in curve.points:
        shares = [f"{share:.6f}" for share in (point.right.mean(), *accuracy_interval(point.right, curve.kin))]
        out.append([point.share, point.images, point.draw, point.C, len(point.right), *shares])
    return out


def map_rows(contents: Contents, points: Map) -> Table:
    """A row for each point of the map."""
    out = []
    for content, (x, y) in zip(points.content, np.asarray(points.place), strict=True):
        record = contents.records[contents.first[content]]
        out.append([record.path, record.sha256, record.split, record.label, f"{x:.4f}", f"{y:.4f}"])
    return out
