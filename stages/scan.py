"""Image folder → ``Manifest``: walk, hash what is new, label, split, check."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from cache.errors import DataError
from cache.files import sha256_file
from cache.manifest import ImageRecord, Manifest
from cache.memo import Stat, StatMemo, stat_of
from stages import layouts
from stages.progress import SILENT, Progress
from stages.specs import DataSpec

EXTENSIONS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
# Too few to be worth a thread pool and a progress bar.
FEW = 64


@dataclass
class Walk:
    """What lies under a folder: image files with their stat, what was skipped and why, what was ignored."""

    files: dict[str, Stat] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)


def scan(data: DataSpec, memo_path: Path, rehash: bool = False, progress: Progress = SILENT) -> Manifest:
    """Look at the data folder and say what is in it.

    ``memo_path`` keeps digests by size, mtime and inode; ``rehash`` reads every file all the same.
    Raises DataError for a folder without images, with fewer than two classes, or with a class that has no training image.
    """
    found = walk(data.root)
    if not found.files:
        what = ", ".join(f"{n} {kind}" for kind, n in found.ignored.most_common(3)) or "nothing"
        raise DataError(
            f"{data.root}: expected images ({' '.join(sorted(EXTENSIONS))}), found {what}; set data.root to your photos"
        )
    digests = _digests(data.root, found, memo_path, rehash, progress)
    return label(data, digests, found)


def walk(root: Path) -> Walk:
    """Every file under ``root``; links are followed within it, never out of it. Raises DataError for no folder."""
    if not root.is_dir():
        what = "a file" if root.exists() else "nothing"
        raise DataError(f"{root}: expected a folder of images, found {what}; set data.root in the configuration")
    found = Walk()
    real_root = os.path.realpath(root)
    stack = [("", real_root, frozenset({real_root}))]
    while stack:
        prefix, folder, above = stack.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            found.skipped[prefix.rstrip("/")] = f"the folder cannot be listed: {error.strerror}"
            continue
        for entry in entries:
            name = prefix + entry.name
            if entry.name.startswith("."):
                found.ignored["hidden"] += 1
            elif entry.is_symlink():
                _follow(entry, name, real_root, above, stack, found)
            elif entry.is_dir():
                stack.append((name + "/", entry.path, above))
            else:
                _take(entry, name, found)
    return found


def _follow(
    entry: os.DirEntry[str],
    name: str,
    real_root: str,
    above: frozenset[str],
    stack: list[tuple[str, str, frozenset[str]]],
    found: Walk,
) -> None:
    target = os.path.realpath(entry.path)
    if not os.path.exists(target):
        found.skipped[name] = "a link to a file that does not exist"
    elif target != real_root and not target.startswith(real_root + os.sep):
        found.skipped[name] = "a link out of the data folder, not followed"
    elif not os.path.isdir(target):
        _take(entry, name, found)
    elif any(folder == target or folder.startswith(target + os.sep) for folder in above):
        found.skipped[name] = "a link to a folder that contains it, not followed"
    else:
        stack.append((name + "/", target, above | {target}))


def _take(entry: os.DirEntry[str], name: str, found: Walk) -> None:
    extension = os.path.splitext(entry.name)[1].lower()
    if extension not in EXTENSIONS:
        found.ignored[extension or "no extension"] += 1
    elif not entry.is_file():
        found.skipped[name] = "not a regular file"
    else:
        found.files[name] = stat_of(entry.stat())


def _digests(root: Path, found: Walk, memo_path: Path, rehash: bool, progress: Progress) -> dict[str, str]:
    """SHA-256 by path, in order of the paths; files that cannot be read go to ``found.skipped``."""
    memo = StatMemo(memo_path)
    known = {} if rehash else {path: memo.get(path, stat) for path, stat in found.files.items()}
    unknown = [path for path in found.files if not known.get(path)]
    for path, result in _hash_all(root, unknown, progress):
        if isinstance(result, OSError):
            found.skipped[path] = f"cannot be read: {result.strerror}"
            known.pop(path, None)
        else:
            memo.put(path, found.files[path], result)
            known[path] = result
    try:
        memo.save()
    except OSError:
        progress.say(f"{memo_path}: cannot be written; images are read again each time")
    return {path: digest for path, digest in sorted(known.items()) if digest}


def _hash_all(root: Path, paths: Sequence[str], progress: Progress) -> Iterator[tuple[str, str | OSError]]:
    def hash_one(path: str) -> str | OSError:
        try:
            return sha256_file(root / path)
        except OSError as error:
            return error

    if len(paths) <= FEW:
        yield from ((path, hash_one(path)) for path in paths)
        return
    # Reading waits for the disk and hashing releases the GIL, so threads serve both.
    with (
        ThreadPoolExecutor(max_workers=4 * (os.cpu_count() or 1)) as pool,
        progress.task("Reading images", len(paths)) as advance,
    ):
        for path, result in zip(paths, pool.map(hash_one, paths, chunksize=16), strict=True):
            advance(1)
            yield path, result


def label(data: DataSpec, digests: dict[str, str], found: Walk) -> Manifest:
    """Labels and splits for hashed images: the manifest, checked."""
    paths = list(digests)
    layout = data.layout or layouts.detect(paths, data.root, data.labels)
    placed = layouts.place(layout, paths, data.root, data.labels)
    unlabelled = [p.path for p in placed if p.label is None]
    labelled = [(p.path, p.label, p.declared) for p in placed if p.label is not None]
    records, notes = assign_splits(data, [(path, digests[path], name, split) for path, name, split in labelled])
    manifest = Manifest(
        layout=layout,
        classes=tuple(sorted({record.label for record in records})),
        records=tuple(records),
        skipped=dict(sorted(found.skipped.items())),
        ignored=dict(sorted(found.ignored.items())),
        unlabelled=tuple(unlabelled),
        notes=(*notes, *_conflicts(records)),
    )
    check(manifest, data.root)
    return manifest


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


def check(manifest: Manifest, root: Path, without: Callable[[str], bool] = lambda sha256: False) -> None:
    """Raise DataError unless there are two classes or more, each with a training image and one of them with validation.

    ``without`` says which contents do not count, because they cannot be decoded.
    """
    usable = [record for record in manifest.records if not without(record.sha256)]
    classes = sorted({record.label for record in usable})
    if len(classes) < 2:
        what = f"one class only ({classes[0]})" if classes else "no labelled image"
        raise DataError(
            f"{root}: expected images of at least two classes, found {what} in layout {manifest.layout!r}; "
            f"the layouts are {layouts.DESCRIPTION} (or set data.layout)"
        )
    trained = {record.label for record in usable if record.split == "train"}
    if untrained := [name for name in manifest.classes if name not in trained]:
        raise DataError(
            f"{root}: class {untrained[0]!r} has no image in train"
            f"{f' (nor have {len(untrained) - 1} others)' if untrained[1:] else ''}; "
            "add images to it, remove it, or draw other splits with data.seed"
        )
    if not any(record.split == "validation" for record in usable):
        raise DataError(
            f"{root}: no image is in validation, so no head can be chosen; add images, or raise data.validation"
        )
