"""Image folder → ``Manifest``: walk, hash what is new, label, split, check."""

import hashlib
import marshal
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cache.errors import DataError
from cache.files import canonical_json, sha256_file
from cache.manifest import ImageRecord, Manifest
from cache.memo import StatMemo, recall_manifest, remember_manifest
from stages.data import layouts
from stages.data.corrections import corrected
from stages.data.groups import drawn_by, grouped, groups_of
from stages.data.part import part_of
from stages.data.spec import DataSpec
from stages.data.splits import assign_splits
from stages.data.walk import EXTENSIONS, Walk, walk
from stages.progress import SILENT, Progress


class NoImagesError(DataError):
    """There is a data folder, and no image in it."""


# Raised when the same files would give another manifest.
SCAN_VERSION = 1
LATER = ("copies", "corrections", "group", "limit", "per_class")
# Too few to be worth a thread pool and a progress bar.
FEW = 64
AT_ONCE = 4096


def scan(
    data: DataSpec,
    folder: Path,
    undecodable: Mapping[str, str],
    rehash: bool = False,
    progress: Progress = SILENT,
    root_name: str = "",
) -> Manifest:
    """Look at the data folder, say what is in it, and keep that as ``folder/manifest.json``.

    Digests are remembered by size, mtime and inode; ``rehash`` reads every file all the same. ``undecodable`` has
    the reason for each content (SHA-256) that an earlier run could not decode: those images are skipped.
    ``root_name`` is how the configuration spells the data folder; the manifest remembers it.
    Raises DataError for a folder without images, with fewer than two classes, or with a class that has no training image.
    """
    found = walk(data.root, folder)
    if not found.files:
        kinds = [f"{n} {kind}" for kind, n in found.ignored.most_common(3)]
        kinds += [f"{len(found.skipped)} skipped ({reason})" for reason in list(found.skipped.values())[:1]]
        what = ", ".join(kinds) or "nothing"
        raise NoImagesError(
            f"{data.root}: expected images ({' '.join(sorted(EXTENSIONS))}), found {what}; set data.root to your photos"
        )
    inputs = _inputs(data, root_name, found, undecodable)
    if not rehash and (manifest := recall_manifest(folder, inputs)):
        return manifest
    memo = StatMemo(folder / "scan-memo.json")
    digests = _digests(data.root, found, memo, rehash, progress)
    manifest = replace(label(data, digests, found, undecodable), root=root_name)
    try:
        memo.save()
        manifest.save(folder / "manifest.json")
        remember_manifest(folder, inputs, manifest, complete=memo.settled and len(digests) == len(found.files))
    except OSError as error:
        progress.say(f"{folder}: cannot be written ({error.strerror}); images are looked at again each time")
    return manifest


def _inputs(data: DataSpec, root_name: str, found: Walk, undecodable: Mapping[str, str]) -> str:
    """Digest of everything that a manifest is made of, but for the content of files whose stat stands as it was."""
    csv = sha256_file(data.labels_file) if data.labels_file.is_file() else ""
    # Fields that were added later count where they are set alone, so that earlier scans are still known.
    later = {name for name in LATER if getattr(data, name) == DataSpec.model_fields[name].default}
    walked = marshal.dumps((found.files, found.skipped, dict(found.ignored)), 2)
    tables = [sha256_file(path) if path.is_file() else "" for path in data.tables]
    spec = canonical_json(
        [SCAN_VERSION, root_name, data.model_dump(mode="json", exclude=later), dict(undecodable), csv, *tables]
    )
    return hashlib.sha256(spec.encode() + walked).hexdigest()


def _digests(root: Path, found: Walk, memo: StatMemo, rehash: bool, progress: Progress) -> dict[str, str]:
    """SHA-256 by path, in order of the paths; files that cannot be read go to ``found.skipped``."""
    known = {} if rehash else {path: memo.get(path, stat) for path, stat in found.files.items()}
    unknown = [path for path in found.files if not known.get(path)]
    for path, result in _hash_all(root, unknown, progress):
        if isinstance(result, OSError):
            found.skipped[path] = f"cannot be read: {result.strerror}"
        else:
            memo.put(path, found.files[path], result)
            known[path] = result
    return {path: digest for path, digest in sorted(known.items()) if digest}


def _hash_all(root: Path, paths: Sequence[str], progress: Progress) -> Iterator[tuple[str, str | OSError]]:
    def hash_one(path: str) -> tuple[str, str | OSError]:
        try:
            return path, sha256_file(root / path)
        except OSError as error:
            return path, error

    if len(paths) <= FEW:
        yield from map(hash_one, paths)
        return
    from concurrent.futures import ThreadPoolExecutor  # a no-op does without

    # Reading waits for the disk and hashing releases the GIL, so threads serve both.
    with (
        ThreadPoolExecutor(max_workers=4 * (os.cpu_count() or 1)) as pool,
        progress.task("Reading images", len(paths)) as advance,
    ):
        for start in range(0, len(paths), AT_ONCE):  # a future for every image at once would take a kilobyte each
            for hashed in pool.map(hash_one, paths[start : start + AT_ONCE]):
                advance(1)
                yield hashed


def label(data: DataSpec, digests: dict[str, str], found: Walk, undecodable: Mapping[str, str]) -> Manifest:
    """Labels and splits for hashed images: the manifest, checked."""
    paths = list(digests)
    layout = data.layout or layouts.detect(paths, data.root, data.labels)
    placed = layouts.place(layout, paths, data.root, data.labels, found.skipped)
    placed, dropped, corrections = corrected(placed, data.corrections, found.skipped)
    labelled = [(path, digests[path], p.label, p.declared) for path, p in placed.items() if p.label is not None]
    labelled, drawn = part_of(data, labelled)
    # What is not drawn or cannot be decoded joins no groups: groups are found from the records alone where the images are gone.
    files = [(path, sha256) for path, sha256, *_ in labelled if sha256 not in undecodable]
    groups = groups_of(data, layout, files, digests.keys() | found.skipped.keys())
    everything, notes = assign_splits(data, labelled, drawn_by(groups))
    records = [record for record in everything if record.sha256 not in undecodable]
    skipped = {path: undecodable[sha256] for path, sha256 in digests.items() if sha256 in undecodable}
    manifest = Manifest(
        layout=layout,
        # A class of nothing but undecodable images is still a class, and an error below.
        classes=tuple(sorted({record.label for record in everything})),
        records=tuple(records),
        skipped=dict(sorted((found.skipped | skipped | dropped).items())),
        ignored=dict(sorted(found.ignored.items())),
        unlabelled=tuple(path for path, p in placed.items() if p.label is None),
        groups=tuple(groups.get(record.sha256, "") for record in records) if data.group else (),
        notes=(*corrections, *grouped(data, records, groups), *notes, *_conflicts(records)),
        drawn=drawn,
    )
    bad = [(path, reason) for path, reason in manifest.skipped.items() if path not in dropped]
    if data.on_bad_image == "fail" and bad:
        raise bad_image(data, *bad[0])
    check(manifest, data.root)
    return manifest


def bad_image(data: DataSpec, path: str, reason: str) -> DataError:
    """The error of ``on_bad_image = "fail"``."""
    return DataError(f'{data.root / path}: {reason}; mend or remove it, or set data.on_bad_image = "skip"')


def _conflicts(records: Sequence[ImageRecord]) -> list[str]:
    """Byte-identical files that disagree: in their labels, or across declared splits (a leak)."""
    notes = []
    copies: defaultdict[str, list[ImageRecord]] = defaultdict(list)
    for record in records:
        copies[record.sha256].append(record)
    for group in copies.values():
        names = ", ".join(record.path for record in group)
        if len({record.label for record in group}) > 1:
            notes.append(f"identical files with different labels: {names}")
        elif len({record.split for record in group}) > 1:
            notes.append(f"identical files in different splits: {names}")
    return notes


def check(manifest: Manifest, root: Path) -> None:
    """Raise DataError unless there are two classes or more, each with a training image and one of them with validation."""
    if manifest.skipped and not manifest.records:
        path, reason = next(iter(manifest.skipped.items()))
        raise DataError(
            f"{root}: expected images, found {len(manifest.skipped)} that cannot be used; the first is {path}: {reason}"
        )
    if len(manifest.classes) < 2:
        what = f"one class only ({manifest.classes[0]})" if manifest.classes else "no labelled image"
        if manifest.layout == "classes" and all(record.path.count("/") > 1 for record in manifest.records):
            what += f', whose images lie in folders of their own: perhaps data.root = "{root / manifest.classes[0]}"'
        raise DataError(
            f"{root}: expected images of at least two classes, found {what} in layout {manifest.layout!r}; "
            f"the layouts are {layouts.DESCRIPTION} (or set data.layout)"
        )
    trained = {record.label for record in manifest.records if record.split == "train"}
    if untrained := [name for name in manifest.classes if name not in trained]:
        raise DataError(
            f"{root}: class {untrained[0]!r} has no image in train"
            f"{f' (nor have {len(untrained) - 1} others)' if untrained[1:] else ''}; "
            "add images to it, remove it, or draw other splits with data.seed"
        )
    if not any(record.split == "validation" for record in manifest.records):
        raise DataError(f"{root}: no image is in validation to choose heads by; add images, or raise data.validation")
