"""Data leakage, counted: images of test or validation that are in train too.

Counted from the manifest where it is shown, and not written into it, so that manifests of earlier versions say it too.
"""

from collections import Counter
from collections.abc import Iterable

from cache.manifest import Manifest

HELD_OUT = ("test", "validation")


def notes_of(manifest: Manifest) -> tuple[str, ...]:
    """What is to be said about the data, the leaks first: a few lines about the whole stand before many about single files."""
    return (*leaks(manifest), *manifest.notes)


def leaks(manifest: Manifest) -> tuple[str, ...]:
    """One line on how many images of test and validation are also in train, one on those whose groups are, or nothing."""
    lines = []
    if len(manifest.by_digest) < len(manifest.records):
        trained = {record.sha256 for record in manifest.records if record.split == "train"}
        if copies := _held_out(record.split for record in manifest.records if record.sha256 in trained):
            lines.append(
                f'LEAK: {_counts(manifest, copies)} are also in train, {_so(copies)}; set copies = "train" in [data]'
            )
    if of := manifest.group_of:
        known = {of.get(record.sha256) for record in manifest.records if record.split == "train"} - {None}
        if related := _held_out(record.split for record in manifest.records if of.get(record.sha256) in known):
            lines.append(
                f"LEAK: {_counts(manifest, related)} are of groups that are also in train, {_so(related)}; "
                "place each group in one split"
            )
    return tuple(lines)


def _held_out(splits: Iterable[str]) -> dict[str, int]:
    found = Counter(splits)
    return {split: found[split] for split in HELD_OUT if found[split]}


def _counts(manifest: Manifest, found: dict[str, int]) -> str:
    sizes = {split: sum(record.split == split for record in manifest.records) for split in HELD_OUT}
    return _joined(f"{n:,} of {sizes[split]:,} {split} images" for split, n in found.items())


def _so(found: dict[str, int]) -> str:
    return f"so {_joined(found)} scores are too good"


def _joined(words: Iterable[str]) -> str:
    return " and ".join(words)
