"""Groups: images that belong together, such as frames of one video or photos of one animal, and so in one split."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from cache.errors import DataError
from cache.files import digest_text
from cache.manifest import ImageRecord, Manifest
from stages.data.labels import id_of
from stages.data.layouts import TABLES
from stages.data.spec import GROUP, DataSpec
from stages.data.tables import read_column, read_table, unknown
from stages.progress import counted

# How groups are told apart, by where they are from.
_FILE = "its column group has the name of the group of each image"
_COLUMN = "each value of that column is a group"
_PATTERN = "what the part in brackets matches is the name of the group"
# The path and the content (SHA-256) of an image.
File = tuple[str, str]


def groups_of(
    data: DataSpec, layout: str, files: Sequence[File], others: Collection[str] | None = ()
) -> dict[str, str]:
    """The name of the group of each content; those in no group are left out.

    Identical contents join their groups, which then have the name that is first of theirs. ``others`` are the paths of images that
    a CSV may name as well; None where it may name any. Raises DataError where a CSV names an image that is not there, for a column that
    the CSV of labels has not, and for a pattern that matches no name.
    """
    if data.group is None:
        return {}
    if data.group_file:
        names = _from_csv(data.group_file, files, others)
    elif data.group_column:
        names = _from_column(data, layout, data.group_column, files, {*(others or ()), *(path for path, _ in files)})
    else:
        names = _from_names(data, files)
    joined = Union()
    for path, sha256 in files:
        if path in names:
            joined.join(("content", sha256), ("group", names[path]))
    found: dict[str, str] = {}
    for members in joined.sets().values():
        name = min(name for kind, name in members if kind == "group")
        found |= {sha256: name for kind, sha256 in members if kind == "content"}
    return found


def groups_again(data: DataSpec, stored: Manifest) -> dict[str, str]:
    """``groups_of`` the images of an earlier scan that are gone; a CSV of labels may have gone with them, and groups stay as they were."""
    if data.group_column and stored.groups and not data.labels_file.is_file():
        return stored.group_of
    files = [(record.path, record.sha256) for record in stored.records]
    # Images that were not drawn are not known by their names.
    return groups_of(data, stored.layout, files, None if stored.drawn else [*stored.skipped, *stored.unlabelled])


def grouped(data: DataSpec, records: Sequence[ImageRecord], groups: Mapping[str, str]) -> list[str]:
    """A note on how many images are in groups, where groups are used, and one on a group that is larger than all others together.

    Raises DataError where one group has all images, as nothing is left then that a head could be scored on.
    """
    if data.group is None:
        return []
    sizes = Counter(groups[record.sha256] for record in records if record.sha256 in groups)
    inside = sizes.total()
    notes = [f"groups: {counted(inside, 'image')} in {counted(len(sizes), 'group')}, {len(records) - inside:,} in none"]
    name, largest = max(sizes.items(), key=lambda each: (each[1], each[0]), default=("", 0))
    if largest > 1 and 2 * largest > len(records):
        found = (
            f"data.group = {data.group!r}: found {counted(len(sizes), 'group')} among {len(records):,} images, the largest of which "
            f"({name!r}) has {largest:,}"
        )
        how = _FILE if data.group_file else _COLUMN if data.group_column else _PATTERN
        remedy = f"mend data.group so that it tells groups apart: {how}"
        if largest == len(records):
            raise DataError(f"{found}: expected groups that are much smaller, as each goes into one split; {remedy}")
        notes.append(f"GROUPS: {found}, more than half, and goes into one split; {remedy}")
    return notes


def drawn_by(groups: Mapping[str, str]) -> dict[str, str]:
    """What the split of each content in a group is drawn from in place of the content's own digest: that of the group's name."""
    return {sha256: digest_text(name) for sha256, name in groups.items()}


def _from_csv(table: Path, files: Sequence[File], others: Collection[str] | None) -> dict[str, str]:
    """The group of each path that the CSV names."""
    known = {path for path, _ in files}.union(others or ())
    found = {}
    for where, (path, name) in read_table(table, ("filename", "group"), "group", known):
        if path not in known and others is not None:
            remedy = "names are relative to data.root, with their extension"
            raise unknown(where, "the name of an image", path, known, remedy)
        found[path] = name
    return found


def _from_column(
    data: DataSpec, layout: str, column: str, files: Sequence[File], known: Collection[str]
) -> dict[str, str]:
    """The group of each path for which the CSV of labels has a value in that column."""
    if layout not in TABLES:
        raise DataError(
            f"data.group = {column!r}: expected {GROUP}, found no such CSV, as the layout is {layout!r}; mend data.group"
        )
    if column.lower() in ("filename", "id", "label", "split"):
        raise DataError(
            f"data.group: expected a column of groups, found {column!r}, which has another meaning; name another column"
        )
    if layout == "csv":
        return read_column(data.labels_file, column, known)
    ids = {path: name for path, _ in files if (name := id_of(path))}
    of_id = read_column(data.labels_file, column, set(ids.values()), "id")
    return {path: of_id[name] for path, name in ids.items() if name in of_id}


def _from_names(data: DataSpec, files: Sequence[File]) -> dict[str, str]:
    """The group of each path whose file name the pattern matches: what the part in brackets matches."""
    pattern = re.compile(data.group or "")
    found = {}
    for path, _ in files:
        match = pattern.search(path.rpartition("/")[2])
        if match and match[1]:
            found[path] = match[1]
    if files and not found:
        raise DataError(
            f"{data.root}: expected file names that the pattern {data.group!r} matches, found {len(files):,} images and none of them, "
            f"such as {files[0][0]}; mend data.group"
        )
    return found


_Node = tuple[str, str]


class Union:
    """Sets of nodes that are joined (union-find, with halved paths)."""

    def __init__(self) -> None:
        self._above: dict[_Node, _Node] = {}

    def join(self, one: _Node, other: _Node) -> None:
        self._above[self._root(one)] = self._root(other)

    def _root(self, node: _Node) -> _Node:
        above = self._above
        while above.setdefault(node, node) != node:
            above[node] = above[above[node]]
            node = above[node]
        return node

    def sets(self) -> dict[_Node, list[_Node]]:
        """The members of each set, by its root."""
        found: dict[_Node, list[_Node]] = {}
        for node in list(self._above):
            found.setdefault(self._root(node), []).append(node)
        return found
