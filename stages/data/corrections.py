"""Corrections: labels that are laid over those of the folders, and images that are dropped, without touching a file."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from cache.errors import DataError
from stages.data.labels import Placed
from stages.data.tables import read_table, unknown
from stages.progress import counted

DROP = "drop"
# How the reason of a dropped image begins.
DROPPED = "dropped by "


class Corrected(NamedTuple):
    """What is said of each image by its path, of each dropped one the reason, and a note on how many were corrected."""

    placed: dict[str, Placed]
    dropped: dict[str, str]
    notes: list[str]


def corrected(placed: Mapping[str, Placed], path: Path | None, skipped: Collection[str] = ()) -> Corrected:
    """What the layout says of each image (by its path) as the CSV ``path`` corrects it.

    Images whose label is ``drop`` are left out. ``skipped`` are images that are there and cannot be used; they may be named.
    Raises DataError for a file that is not there, and for a path or a label that no image has.
    """
    if path is None:
        return Corrected(dict(placed), {}, [])
    classes = {each.label for each in placed.values() if each.label is not None}
    if DROP in classes:
        raise DataError(
            f"{path}: expected no class named {DROP!r}, as that label drops an image, found one; rename it, or unset data.corrections"
        )
    result, known = dict(placed), {*placed, *skipped}
    relabelled, dropped = 0, dict[str, str]()
    for where, (name, label) in read_table(path, ("path", "label"), "corrections", known):
        if name not in known:
            remedy = "paths are relative to data.root, with their extension"
            raise unknown(where, "the path of an image", name, known, remedy)
        if label == DROP:
            dropped[name] = f"{DROPPED}{path.name}"
            result.pop(name, None)
            continue
        if label not in classes:
            raise unknown(where, f"a class of the folder, or {DROP!r}", label, classes, "mend the label")
        if name in result and result[name].label != label:
            relabelled += 1
            result[name] = result[name]._replace(label=label)
    counts = f"{counted(relabelled, 'label')} corrected, {counted(len(dropped), 'image')} dropped"
    return Corrected(result, dropped, [f"{path.name}: {counts}"])
