"""Train, validation and test: as the layout declares them, or drawn from each image's content."""

import hashlib
from collections.abc import Iterable

from cache.manifest import ImageRecord
from stages.specs import DataSpec


def assign_splits(
    data: DataSpec, rows: Iterable[tuple[str, str, str, str | None]]
) -> tuple[list[ImageRecord], list[str]]:
    """The split of each (path, sha256, label, declared split), and what is to be said about it.

    Declared splits stand. Where the layout declares none, all three are drawn; where it declares train but no
    validation, validation is drawn from train, as heads cannot be chosen without it; a test split is never taken
    from images that were declared to be training images.
    """
    rows = list(rows)
    declared = {split for *_, split in rows if split}
    notes = []
    if declared and "validation" not in declared:
        notes.append(f"no validation split in the folder: {data.validation:.0%} of train is drawn for it")
    if declared and "test" not in declared:
        notes.append("no test split in the folder: scores are validation scores, and nothing is tested")

    def split_of(sha256: str, split: str | None) -> str:
        if split == "train" and "validation" not in declared:
            return draw(sha256, data.seed, 0.0, data.validation)
        return split or draw(sha256, data.seed, data.test, data.validation)

    return [ImageRecord(path, sha, name, split_of(sha, split), split) for path, sha, name, split in rows], notes


def draw(sha256: str, seed: int, test: float, validation: float) -> str:
    """A split from an image's content and the seed alone: adding images moves none, and copies stay together."""
    digest = hashlib.sha256(f"{seed}:{sha256}".encode("ascii")).digest()
    u = int.from_bytes(digest[:8], "big") / 2**64
    return "test" if u < test else "validation" if u < test + validation else "train"
