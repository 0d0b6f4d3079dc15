"""The manifest: which images there are, with which label, in which split, with which content.

It is the authority for labels and splits; shards and heads follow it.
"""

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from cache.errors import CacheError
from cache.files import canonical_json, digest_json, digest_text, read_sealed_with_digest, seal, write_if_changed

SPLITS = ("train", "validation", "test")
SCHEMA = 1
# What is stored beside the columns of the records, in this order.
FIELDS = ("layout", "classes", "skipped", "ignored", "unlabelled", "notes", "root")


class ImageRecord(NamedTuple):
    """One labelled image file. A named tuple, as a no-op makes one for each image, and they are made quickly.

    ``path`` is relative to the data root, with ``/`` between folders; ``declared`` is the split that the
    layout gives, or None where it is drawn; ``split`` is the one in force.
    """

    path: str
    sha256: str
    label: str
    split: str
    declared: str | None = None


@dataclass(frozen=True)
class Manifest:
    """All images of one data folder, in order of their paths.

    ``skipped`` maps a path to the reason for which it is left out (it cannot be read or decoded, or was dropped), ``ignored``
    counts files by their extension, ``unlabelled`` lists images without a label (what ``predict`` runs on), ``root`` is the data
    folder as the configuration spells it. ``groups`` names the group of each record, "" for one in
    none; it is empty where groups are not used. ``drawn`` says how many of the labelled images these are, where others were not drawn.
    """

    layout: str
    classes: tuple[str, ...]
    records: tuple[ImageRecord, ...]
    skipped: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, int] = field(default_factory=dict)
    unlabelled: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    root: str = ""
    groups: tuple[str, ...] = ()
    drawn: str = ""

    @cached_property
    def rows_digest(self) -> str:
        """SHA-256 over content, label and split of every image, and its group: all that training sees, and no file name."""
        rows = [f"{r.sha256} {r.split} {r.label}" for r in self.records]
        if self.groups:
            rows = [f"{row} {json.dumps(group)}" for row, group in zip(rows, self.groups, strict=True)]
        rows.sort()
        return digest_text("\n".join([*self.classes, "", *rows]))

    @cached_property
    def names_digest(self) -> str:
        """SHA-256 over the name and the content of every image."""
        return digest_json([[record.path for record in self.records], [record.sha256 for record in self.records]])

    @cached_property
    def digest(self) -> str:
        """SHA-256 over everything in the manifest, file names included."""
        return digest_text(self._to_json())

    @cached_property
    def by_digest(self) -> dict[str, ImageRecord]:
        """The first record, in order of paths, of each content."""
        found: dict[str, ImageRecord] = {}
        for record in self.records:
            found.setdefault(record.sha256, record)
        return found

    @cached_property
    def train(self) -> "Manifest":
        """The training images alone."""
        return replace(self, records=tuple(r for r in self.records if r.split == "train"), groups=())

    @cached_property
    def group_of(self) -> dict[str, str]:
        """The name of the group of each content that is in one."""
        return {record.sha256: name for record, name in zip(self.records, self.groups, strict=False) if name}

    def counts(self) -> dict[str, Counter[str]]:
        """Images by split and then by class."""
        return {split: Counter(r.label for r in self.records if r.split == split) for split in SPLITS}

    def save(self, path: Path) -> bool:
        """Write the manifest where it differs from what is there; says whether it wrote."""
        return write_if_changed(path, seal(self._to_json()))

    def _to_json(self) -> str:
        stored: dict[str, Any] = {"schema": SCHEMA} | {name: getattr(self, name) for name in FIELDS}
        stored["rows_digest"] = self.rows_digest
        stored |= {name: [getattr(record, name) for record in self.records] for name in ImageRecord._fields}
        if self.groups:
            stored["group"] = self.groups
        if self.drawn:
            stored["drawn"] = self.drawn
        # One column a line: quick to read back, and a diff of two manifests can be looked at.
        lines = [f"{json.dumps(name)}:{canonical_json(value)}" for name, value in stored.items()]
        return "{" + ",\n".join(lines) + "}"

    @classmethod
    def load(cls, path: Path | str) -> "Manifest":
        """Read a manifest back. Raises CacheError for a file of another schema or of none."""
        path = Path(path)
        # The seal is the digest of the text, so that neither has to be computed again.
        digest, stored = read_sealed_with_digest(path, "a manifest")
        if stored.get("schema") != SCHEMA:
            raise CacheError(
                f"{path}: expected a manifest of schema {SCHEMA}, found schema {stored.get('schema')}; "
                "scan again where the images are"
            )
        records = tuple(map(ImageRecord, *(stored[name] for name in ImageRecord._fields)))
        fields: dict[str, Any] = {name: stored[name] for name in FIELDS}
        for name in ("classes", "unlabelled", "notes"):
            fields[name] = tuple(fields[name])  # JSON knows lists only
        manifest = cls(records=records, groups=tuple(stored.get("group", ())), drawn=stored.get("drawn", ""), **fields)
        vars(manifest).update(digest=digest, rows_digest=stored["rows_digest"])
        return manifest
