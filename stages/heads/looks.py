"""How often the test images were looked at: whoever tries many heads and keeps the best on test, chooses by test."""

import csv
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cache.files import digest_text, read_memo, write_sealed
from cache.manifest import Manifest
from stages.heads.results import read_result

NAME = "test_looks.json"


def note_look(folder: Path, manifest: Manifest, key: str) -> int:
    """Note that the head with this ``key`` was scored on the test images; how many heads were by now, 0 without test images.

    It is kept beside the heads, in ``folder``, by the digest of the test images. A head that is trained again as it was counts once, and
    other labels change nothing. Where some of the images are others, the count of the earlier ones goes on, as long as more than half of
    both are the same; what these were is read from the predictions of the heads that are still there. Else it begins anew.
    """
    images = _test_images(manifest)
    if not images:
        return 0
    stored, test = read_memo(folder / NAME), _digest(images)
    keys = stored.get(test) or _carried_over(folder, stored, images)
    if key not in keys or test not in stored:
        stored[test] = keys = list(dict.fromkeys([*keys, key]))
        with suppress(OSError):  # a head that is trained is worth more than the count
            write_sealed(folder / NAME, stored)
    return len(keys)


def test_looks(folder: Path, manifest: Manifest) -> int:
    """How many heads have been scored on the test images, those that were removed or trained otherwise since included."""
    return len(read_memo(folder / NAME).get(_digest(_test_images(manifest)), []))


def _test_images(manifest: Manifest) -> set[str]:
    return {record.sha256 for record in manifest.records if record.split == "test"}


def _digest(images: Collection[str]) -> str:
    return digest_text("\n".join(sorted(images))) if images else ""


def _carried_over(folder: Path, stored: Mapping[str, Any], images: set[str]) -> list[str]:
    """The keys of the heads that were scored on test images which are mostly these."""
    # Heads of the same rows were scored on the same images: one of them tells.
    heads = {result["rows_digest"]: path for path in sorted(folder.glob("*/")) if (result := read_result(path))}
    keys: dict[str, None] = {}
    for path in heads.values():
        earlier = _scored_on(path / "predictions.csv")
        if 2 * len(earlier & images) > max(len(earlier), len(images)):
            keys |= dict.fromkeys(stored.get(_digest(earlier), []))
    return list(keys)


def _scored_on(path: Path) -> set[str]:
    """The test images of ``predictions.csv``; none where it cannot be read."""
    with (
        suppress(OSError, ValueError, KeyError, csv.Error),
        open(path, newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        return {row["sha256"] for row in csv.DictReader(file) if row["split"] == "test"}
    return set()
