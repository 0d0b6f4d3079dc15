"""How often the test images were looked at: whoever tries many heads and keeps the best on test, chooses by test."""

from contextlib import suppress
from pathlib import Path

from cache.files import digest_text, read_memo, write_sealed
from cache.manifest import Manifest

NAME = "test_looks.json"


def note_look(folder: Path, manifest: Manifest, key: str) -> int:
    """Note that the head with this ``key`` was scored on the test images; how many heads were by now, 0 without test images.

    It is kept beside the heads, in ``folder``. A head that is trained again as it was counts once; other test images, though not
    other labels, begin anew.
    """
    if not (test := _test_digest(manifest)):
        return 0
    stored = read_memo(folder / NAME)
    keys = stored.setdefault(test, [])
    if key not in keys:
        keys.append(key)
        stored.pop("checksum", None)
        with suppress(OSError):  # a head that is trained is worth more than the count
            write_sealed(folder / NAME, stored)
    return len(keys)


def test_looks(folder: Path, manifest: Manifest) -> int:
    """How many heads have been scored on the test images, those that were removed or trained otherwise since included."""
    return len(read_memo(folder / NAME).get(_test_digest(manifest), []))


def _test_digest(manifest: Manifest) -> str:
    rows = sorted({record.sha256 for record in manifest.records if record.split == "test"})
    return digest_text("\n".join(rows)) if rows else ""
