"""Train, validation and test: as the layout declares them, or drawn from each image's content."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from cache.errors import DataError
from cache.manifest import SPLITS, ImageRecord
from stages.data.spec import DataSpec
from stages.progress import counted


def assign_splits(
    data: DataSpec, rows: Sequence[tuple[str, str, str, str | None]], drawn_by: Mapping[str, str] | None = None
) -> tuple[list[ImageRecord], list[str]]:
    """The split of each (path, sha256, label, declared split), and what is to be said about it.

    Declared splits stand. Where the layout declares none, all three are drawn; where it declares train but no
    validation, validation is drawn from train, as heads cannot be chosen without it; images without a split beside
    images with one are drawn into train or validation. A test split is never taken from declared training images.
    ``drawn_by`` has the digest that the split of a content is drawn from where that is not its own: that of its group.
    With ``copies = "train"``, contents and groups that lie in several splits are in train everywhere. Raises DataError where that
    would leave no image in validation.
    """
    declared = {split for *_, split in rows if split}
    test = 0.0 if declared else data.test
    drawn_by = drawn_by or {}

    def split_of(sha256: str, split: str | None) -> str:
        if split and not (split == "train" and "validation" not in declared):
            return split
        u = position(drawn_by.get(sha256, sha256), data.seed)
        return "test" if u < test else "validation" if u < test + data.validation else "train"

    records = [ImageRecord(path, sha, label, split_of(sha, split), split) for path, sha, label, split in rows]
    records, notes = _train_every_class(records, data.seed, drawn_by)
    if data.copies == "train":
        records, moved = _copies_into_train(data, records, drawn_by)
        notes += moved
    counts = {split: Counter(r.label for r in records if r.split == split) for split in SPLITS}
    if declared and "validation" not in declared:
        notes.append(f"no validation split in the folder: {data.validation:.0%} of train is drawn for it")
    if not counts["test"]:
        why = "in the folder" if declared or not data.test else "drawn from so few images"
        if "test" in declared:
            why = "is left, as all of its images belong to train"
        notes.append(f"no test split {why}: scores are validation scores, and nothing is tested")
    for split in ("validation", "test"):
        absent = sorted({r.label for r in records} - counts[split].keys())
        if absent and counts[split]:
            names = ", ".join(absent[:5]) + (" …" if len(absent) > 5 else "")
            notes.append(f"{counted(len(absent), 'class has', 'classes have')} no image in {split}: {names}")
    return records, notes


def position(sha256: str, seed: int) -> float:
    """Where an image stands in 0…1, by its content and the seed alone: test is drawn from the low end, then validation.

    So adding images moves none of the others, and identical copies stay together.
    """
    digest = hashlib.sha256(f"{seed}:{sha256}".encode("ascii")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _copies_into_train(
    data: DataSpec, records: list[ImageRecord], drawn_by: Mapping[str, str]
) -> tuple[list[ImageRecord], list[str]]:
    """Images whose content, or group, is in several splits go to train, so that nothing is scored on what was seen before."""
    units = [drawn_by.get(record.sha256, record.sha256) for record in records]
    splits: defaultdict[str, set[str]] = defaultdict(set)
    for unit, record in zip(units, records, strict=True):
        splits[unit].add(record.split)
    together = [
        record._replace(split="train") if len(splits[unit]) > 1 else record
        for unit, record in zip(units, records, strict=True)
    ]
    moved = Counter(was.split for was, now in zip(records, together, strict=True) if was.split != now.split)
    if not moved:
        return records, []
    if moved["validation"] and not any(record.split == "validation" for record in together):
        raise DataError(
            f'{data.root}: copies = "train": expected an image of validation that is in no other split, found '
            f"{moved['validation']:,} that all are; add other images to validation, or remove it, and it is drawn from train"
        )
    counts = " and ".join(f"{moved[split]:,} of {split}" for split in SPLITS if moved[split])
    what = "images or groups" if drawn_by else "images"
    return together, [f"copies: {counts} moved to train, as the same {what} are in several splits"]


def _train_every_class(
    records: list[ImageRecord], seed: int, drawn_by: Mapping[str, str]
) -> tuple[list[ImageRecord], list[str]]:
    """In a class too small for its draw to have left a training image, the image that came nearest becomes one, with its group.

    This is the only way in which another image can move one that is drawn: by being the nearer one.
    """
    trained = {record.label for record in records if record.split == "train"}
    nearest: dict[str, tuple[float, str]] = {}
    for record in records:
        if record.label not in trained and record.declared is None:
            digest = drawn_by.get(record.sha256, record.sha256)
            mine = (position(digest, seed), digest)
            nearest[record.label] = max(mine, nearest.get(record.label, mine))
    chosen = {digest for _, digest in nearest.values()}
    promoted = {r.sha256 for r in records if r.declared is None and drawn_by.get(r.sha256, r.sha256) in chosen}
    if not promoted:
        return records, []
    moved = [r._replace(split="train") if r.sha256 in promoted and r.declared is None else r for r in records]
    return moved, [
        f"{len(promoted)} images were drawn into train, as their classes had none: {', '.join(sorted(nearest)[:5])}"
    ]
