"""Data leakage, counted: images of test or validation that heads have seen before, in train or where heads are chosen.

Counted from the manifest where it is shown, and not written into it, so that manifests of earlier versions say it too.
"""

from collections import Counter
from collections.abc import Sequence

from cache.manifest import Manifest

HELD_OUT = ("test", "validation")


def notes_of(manifest: Manifest) -> tuple[str, ...]:
    """What is to be said about the data, the leaks first: a few lines about the whole stand before many about single files."""
    return (*leaks(manifest), *([manifest.drawn] if manifest.drawn else []), *manifest.notes)


def leaks(manifest: Manifest) -> tuple[str, ...]:
    """Lines on how many images of test and validation are also in a split that heads have seen before, themselves or by their group."""
    lines = []
    if len(manifest.by_digest) < len(manifest.records):
        lines += _straddling(manifest, [record.sha256 for record in manifest.records], "")
    if manifest.groups:
        lines += _straddling(manifest, manifest.groups, "of {} that {} ")
    return tuple(lines)


def _straddling(manifest: Manifest, units: Sequence[str], of: str) -> list[str]:
    """A line on units that are in train too, one on test images whose unit is in validation but not in train.

    ``units`` has the content or the group of each record; "" is none. ``of`` says in what way an image is in a split by its unit.
    """
    pairs = list(zip((record.split for record in manifest.records), units, strict=True))
    trained, chosen = ({unit for split, unit in pairs if split == where and unit} for where in ("train", "validation"))
    chosen -= trained  # said once
    found = {
        "train": Counter(split for split, unit in pairs if unit in trained and split in HELD_OUT),
        "validation, which chooses heads": Counter(
            split for split, unit in pairs if unit in chosen and split == "test"
        ),
    }
    lines = []
    for where, counts in found.items():
        if n := counts.total():
            are, groups = ("is", "a group") if n == 1 else ("are", "groups")
            lines.append(
                f"LEAK: {_counts(manifest, counts)} {are} {of.format(groups, are)}also in {where}, {_so(counts)}; "
                'set copies = "train" in [data]'
            )
    return lines


def _counts(manifest: Manifest, found: Counter[str]) -> str:
    sizes = Counter(record.split for record in manifest.records)
    return " and ".join(f"{found[split]:,} of {sizes[split]:,} {split} images" for split in HELD_OUT if found[split])


def _so(found: Counter[str]) -> str:
    return f"so {' and '.join(split for split in HELD_OUT if found[split])} scores are too good"
