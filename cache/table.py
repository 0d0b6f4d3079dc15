"""The table of a shard: which image each row is of. It knows no HDF5, so that a no-op compares it with the manifest quickly."""

from collections.abc import Sequence
from dataclasses import dataclass

from cache.manifest import ImageRecord, Manifest


@dataclass(frozen=True)
class ShardTable:
    """What a shard holds, without its features: row i is ``sha256[i]``, ``class_names[labels[i]]``, ``paths[i]``."""

    sha256: list[str]
    labels: list[int]
    paths: list[str]
    class_names: list[str]

    @classmethod
    def of(cls, records: Sequence[ImageRecord], classes: Sequence[str]) -> "ShardTable":
        """The table of a shard whose row i is of ``records[i]``."""
        ids = {name: i for i, name in enumerate(classes)}
        return cls(
            sha256=[record.sha256 for record in records],
            labels=[ids[record.label] for record in records],
            paths=[record.path for record in records],
            class_names=list(classes),
        )

    def records(self) -> list[ImageRecord]:
        """What the table says of each image. A shard knows of no split."""
        columns = zip(self.paths, self.sha256, self.labels, strict=True)
        return [ImageRecord(path, sha256, self.class_names[label], "") for path, sha256, label in columns]

    def agrees(self, manifest: Manifest) -> bool:
        """Whether labels, paths and class names are those of the manifest, for the images that it has."""
        names, known = self.class_names, manifest.by_digest
        return tuple(names[: len(manifest.classes)]) == manifest.classes and all(
            record is None or (record.path == path and record.label == names[label])
            for record, label, path in zip(map(known.get, self.sha256), self.labels, self.paths, strict=True)
        )

    def relabelled(self, manifest: Manifest) -> "ShardTable":
        """The table as it should be: what the manifest says, and what stood for images that it does not have.

        Those may belong to another configuration, so their class names are kept, behind the manifest's.
        """
        records = [manifest.by_digest.get(record.sha256, record) for record in self.records()]
        others = {record.label for record in records} - set(manifest.classes)
        return ShardTable.of(records, [*manifest.classes, *sorted(others)])
