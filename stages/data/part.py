"""A part of the images, as ``limit`` and ``per_class`` of ``[data]`` ask for: so that a first try takes a tenth of the time.

It is drawn from contents and the seed: the same images everywhere, and a larger part has all images of a smaller one.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from itertools import islice

from cache.errors import DataError
from cache.manifest import SPLITS
from stages.data.spec import DataSpec

# The path, the content (SHA-256), the label and the declared split of an image.
Row = tuple[str, str, str, str | None]
_Stratum = tuple[str, str | None]


def part_of(data: DataSpec, rows: Sequence[Row]) -> tuple[list[Row], str]:
    """The rows that are drawn, in their order, and a sentence on how many they are, which is empty where all are.

    Each class has the share of the part that it has of the whole, and so has each declared split within it; but each has one image
    at least, as far as the limit allows. Copies of an image count as one, and are drawn together.
    Raises DataError for a limit that does not reach for an image of each class.
    """
    if data.limit is None and data.per_class is None:
        return list(rows), ""
    drawn = _in_turn(data, rows)
    if data.per_class is not None:
        of_class: defaultdict[str, list[str]] = defaultdict(list)
        for sha256, label in drawn.items():
            of_class[label].append(sha256)
        kept = {sha256 for each in of_class.values() for sha256 in each[: data.per_class]}
        drawn = {sha256: label for sha256, label in drawn.items() if sha256 in kept}
    if data.limit is not None:
        most = data.limit if isinstance(data.limit, int) else max(1, round(data.limit * len(drawn)))
        if most < (classes := len(set(drawn.values()))):
            raise DataError(
                f"{data.root}: data.limit: expected an image for each of the {classes} classes at least, found {most}; raise the limit"
            )
        drawn = dict(islice(drawn.items(), most))
    part = [row for row in rows if row[1] in drawn]
    if len(part) == len(rows):
        return part, ""
    options = " and ".join(name for name in ("per_class", "limit") if getattr(data, name) is not None)
    return part, f"{len(part):,} of {len(rows):,} images, drawn by [data] {options}"


def _in_turn(data: DataSpec, rows: Sequence[Row]) -> dict[str, str]:
    """The class of each content, in the order in which they are drawn: the first of them are a part of the whole, however many.

    The i-th image (from 0) of a stratum of n stands at i/n, so that any beginning of the order has the same share of each, rounded
    up (Adams's divisors). What stands at the same place goes by the split, train first, as each class needs an image there; but the first
    image of a class, in whichever split it has one, goes before the second one of another.
    """
    strata: dict[str, _Stratum] = {}
    for _, sha256, label, declared in rows:
        mine = (label, declared)
        # A content with several labels or splits belongs to the first, whatever its files are called.
        strata[sha256] = min(mine, strata.get(sha256, mine), key=_rank)
    members: defaultdict[_Stratum, list[tuple[str, str]]] = defaultdict(list)
    for sha256, stratum in strata.items():
        members[stratum].append((_chance(sha256, data.seed), sha256))
    firsts: dict[str, _Stratum] = {}
    for stratum in members:
        firsts[stratum[0]] = min(stratum, firsts.get(stratum[0], stratum), key=_rank)
    places = [
        (i / len(each), firsts[stratum[0]] != stratum, _rank(stratum)[0], chance, sha256)
        for stratum, each in members.items()
        for i, (chance, sha256) in enumerate(sorted(each))
    ]
    return {sha256: strata[sha256][0] for *_, sha256 in sorted(places)}


def _rank(stratum: _Stratum) -> tuple[int, str]:
    label, declared = stratum
    return ("", *SPLITS).index(declared or ""), label


def _chance(sha256: str, seed: int) -> str:
    """What an image is drawn by. Another digest than that of its split, or the first images would all be of test."""
    return hashlib.sha256(f"part {seed}:{sha256}".encode("ascii")).hexdigest()
