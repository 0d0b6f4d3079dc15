"""AVIF, which Pillow reads, and HEIC where what reads it is not installed; tests/extras/test_heic.py reads it.

The files in ``phone/`` are of one gradient, 60 pixels wide and 40 high, but for one. They were made with
pillow-heif (HEIC) and imagecodecs (AVIF with 10 bits), which encode what pi-heif and Pillow cannot.
"""

import io
import re
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, look, write_photos
from PIL import Image
from test_images import close, encode, smooth

from cache.files import sha256_file
from cache.skipped import SkippedImages
from stages.data.formats import NO_HEIC, curable, is_avif, is_heic
from stages.data.images import BadImageError, decode
from stages.data.policy import EXACT

PHONE = ROOT / "tests" / "phone"
HEIC = (PHONE / "plain.heic").read_bytes()
AVIF = encode(Image.fromarray(smooth()), "AVIF", quality=90)


def of_size(data: bytes, side: int) -> bytes:
    """A file of the ISO media format with another size in its header."""
    patched = bytearray(data)
    for found in re.finditer(b"ispe", data):
        patched[found.start() + 8 : found.start() + 16] = struct.pack(">II", side, side)
    return bytes(patched)


def test_avif() -> None:
    assert close(decode(AVIF), smooth()) and decode(AVIF, (20, 30)).shape == (20, 30, 3)
    assert close(decode((PHONE / "ten_bits.avif").read_bytes()), smooth())


def test_avif_with_orientation_and_transparency() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(smooth()).transpose(Image.Transpose.ROTATE_90)
    assert close(decode(encode(turned, "AVIF", quality=90, exif=exif)), smooth())
    rgba = np.dstack([smooth(), np.zeros((40, 60), np.uint8)])
    rgba[:20, :, 3] = 255
    found = decode(encode(Image.fromarray(rgba), "AVIF", quality=90))
    assert close(found[:20], smooth()[:20]) and (found[20:] >= 250).all()


def test_an_animated_avif_counts_by_its_first_frame() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    out = io.BytesIO()
    frames[0].save(out, "AVIF", save_all=True, append_images=frames[1:])
    assert np.abs(decode(out.getvalue()).astype(int) - [255, 0, 0]).max() < 8


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (AVIF[:100], "damaged: its header cannot be read"),
        (AVIF[:-20], "damaged: .*"),
        (of_size(AVIF, 14_000), "more pixels than the limit of 178,956,970"),
        (of_size(AVIF, 100_000), "damaged: its header cannot be read"),
        (b"\0\0\0\x18ftypmp42" + bytes(100), r"not an image that can be read \(its brand is b'mp42'\)"),
    ],
    ids=["header", "truncated", "bomb", "a larger bomb", "film"],
)
def test_what_cannot_be_decoded_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(BadImageError, match=f"^{reason}$"):
        decode(data, (8, 8))


def test_files_are_told_by_their_brands() -> None:
    assert is_heic(HEIC) and not is_avif(HEIC) and is_avif(AVIF) and not is_heic(AVIF)
    common = b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf"
    assert is_avif(common) and not is_heic(common)
    assert is_heic(common.replace(b"avif", b"heic")) and is_heic(common.replace(b"avif", b"abcd"))
    assert not is_heic(b"") and not is_heic(b"\xff\xd8\xff" + bytes(20)) and not is_avif(b"\0\0\0\x1cftyp")


def test_without_its_package_a_heic_file_is_skipped_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pi_heif", None)  # as if it were not installed
    with pytest.raises(BadImageError) as error:
        decode(HEIC, (8, 8))
    assert str(error.value) == NO_HEIC and '.venv/bin/python -m pip install -e ".[heic]"' in NO_HEIC
    assert not curable(NO_HEIC)


def test_what_earlier_versions_could_not_read_is_tried_again(tmp_path: Path) -> None:
    """They skipped a HEIC or AVIF file that is called .jpg for what it begins with, and remembered that by its content."""
    old = {
        "a": f"not an image that can be read (it begins with {AVIF[:8]!r})",
        "b": "damaged: its header cannot be read",
    }
    before = SkippedImages(tmp_path / "skipped.json", EXACT)
    before.reasons |= old
    before.save()
    assert SkippedImages(tmp_path / "skipped.json", EXACT).reasons == old
    again = SkippedImages(tmp_path / "skipped.json", EXACT, curable)
    assert again.reasons.keys() == {"b"}
    again.save()
    assert SkippedImages(tmp_path / "skipped.json", EXACT).reasons.keys() == {"b"}
    assert not curable("not an image that can be read (its brand is b'mp42')")


def test_they_are_found_in_any_case(tmp_path: Path) -> None:
    write_photos(tmp_path / "p", {"a": 20, "b": 20})
    for name, data in (("x.heic", HEIC), ("y.HEIF", HEIC + b" "), ("z.Avif", AVIF)):
        (tmp_path / "p" / "a" / name).write_bytes(data)
    found = look(tmp_path / "p")
    assert found.ignored == {} and {"a/x.heic", "a/y.HEIF", "a/z.Avif"} <= {record.path for record in found.records}
    assert sha256_file(tmp_path / "p" / "a" / "z.Avif") in found.by_digest
