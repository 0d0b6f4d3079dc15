"""The decode policy, on real files of every kind."""

import io
import os
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from stages.data.images import BadImageError, decode, thumbnail

RNG = np.random.default_rng(0)


def smooth(height: int = 40, width: int = 60) -> np.ndarray:
    """A smooth gradient with a different corner each, so that orientation and compression can be told apart."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return np.stack([255 * x, 255 * y, 255 * (1 - x) * y], axis=-1).astype(np.uint8)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def close(found: np.ndarray, expected: np.ndarray, tolerance: float = 6) -> bool:
    return found.shape == expected.shape and bool(np.abs(found.astype(int) - expected.astype(int)).mean() < tolerance)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_formats(kind: str) -> None:
    pixels = smooth()
    found = decode(encode(Image.fromarray(pixels), kind))
    assert found.dtype == np.uint8 and close(found, pixels)


def test_size_is_height_and_width_and_resizing_is_antialiased() -> None:
    assert decode(encode(Image.fromarray(smooth()), "PNG"), (20, 30)).shape == (20, 30, 3)
    checks = ((np.indices((64, 64)).sum(axis=0) % 2) * 255).astype(np.uint8)
    small = decode(encode(Image.fromarray(checks), "PNG"), (8, 8))
    assert np.abs(small.astype(int) - 127).max() <= 8  # nearest or plain bilinear would keep black and white


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    pixels = smooth()
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    turned = Image.fromarray(pixels)
    if orientation in undo:
        turned = turned.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("PNG", "JPEG"):
        assert close(decode(encode(turned, kind, exif=exif)), pixels, 4)


def test_alpha_lies_over_white() -> None:
    rgba = np.dstack([smooth(), np.zeros((40, 60), np.uint8)])
    rgba[:20, :, 3] = 255
    found = decode(encode(Image.fromarray(rgba, "RGBA"), "PNG"))
    np.testing.assert_array_equal(found[:20], smooth()[:20])
    assert (found[20:] == 255).all()


def test_grey_with_alpha_and_transparent_palette_and_transparent_colour() -> None:
    grey = np.dstack([np.full((4, 4), 100, np.uint8), np.full((4, 4), 0, np.uint8)])
    assert (decode(encode(Image.fromarray(grey, "LA"), "PNG")) == 255).all()
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    assert (decode(encode(palette, "PNG")) == [200, 100, 50]).all()
    assert (decode(encode(palette, "PNG", transparency=1)) == 255).all()
    assert (decode(encode(palette, "GIF", transparency=1)) == 255).all()
    assert (decode(encode(Image.new("RGB", (4, 4), (1, 2, 3)), "PNG", transparency=(1, 2, 3))) == 255).all()
    deep = Image.fromarray(np.full((4, 4), 20000, np.uint16))
    assert (decode(encode(deep, "PNG", transparency=20000)) == 255).all()
    assert (decode(encode(deep, "PNG", transparency=20001)) == 78).all()


def test_16_bits_are_scaled_and_not_clipped() -> None:
    values = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        found = decode(encode(Image.fromarray(values), kind))
        np.testing.assert_allclose(found[..., 0], values / 257.0, atol=0.51)


def test_one_bit_grey_and_cmyk() -> None:
    assert set(np.unique(decode(encode(Image.fromarray(smooth()).convert("1"), "PNG")))) == {0, 255}
    grey = decode(encode(Image.fromarray(smooth()).convert("L"), "JPEG"))
    assert (grey[..., 0] == grey[..., 2]).all()
    assert close(decode(encode(Image.fromarray(smooth()).convert("CMYK"), "JPEG", quality=95)), smooth(), 8)


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_an_animation_counts_by_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    options = {"save_all": True, "append_images": frames[1:]}
    found = decode(encode(frames[0], kind, **options, **({"lossless": True} if kind == "WEBP" else {})))
    assert (found == [255, 0, 0]).all()


def test_very_long_images() -> None:
    assert decode(encode(Image.new("RGB", (10_000, 1), "red"), "PNG"), (16, 16)).shape == (16, 16, 3)


def bomb(side: int = 20_000) -> bytes:
    """A PNG file of some kilobytes that has side × side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header, rows = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0), zlib.compressobj()
    data = b"".join(rows.compress(bytes(side // 8 + 1)) for _ in range(side)) + rows.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


JPEG = encode(Image.fromarray(smooth(200, 200)), "JPEG")
PNG = encode(Image.fromarray(smooth(200, 200)), "PNG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"not an image", "not an image that can be read"),
        (JPEG[: len(JPEG) // 2], "damaged: .*truncated"),
        (PNG[: len(PNG) // 2], "damaged: "),
        (PNG[:40] + bytes(200) + PNG[240:], "damaged: its header cannot be read"),
        (PNG[:400] + bytes(200) + PNG[600:], "damaged: "),
        (encode(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "32-bit pixels, which have no defined white"),
        (encode(Image.fromarray(np.full((4, 4), 100_000, np.int32)), "TIFF"), "32-bit pixels"),
    ],
    ids=["empty", "text", "truncated JPEG", "truncated PNG", "damaged header", "damaged PNG", "float TIFF", "32-bit TIFF"],
)  # fmt: skip
def test_what_cannot_be_decoded_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(BadImageError, match=reason):
        decode(data, (8, 8))


def test_a_decompression_bomb_is_refused() -> None:
    with pytest.raises(BadImageError, match="more .*than the limit of 178,956,970"):
        decode(bomb(), (8, 8))


def test_threads_that_decode_leave_the_filters_of_warnings_alone() -> None:
    files = []
    for height in range(100, 1200, 150):
        Image.new("RGB", (300, height)).save(file := io.BytesIO(), "JPEG")
        files.append(file.getvalue())
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as threads:
        for _ in range(10):
            list(threads.map(lambda data: decode(data, (100, 100)), files * 5))
            assert list(warnings.filters) == before


def test_what_pillow_says_of_odd_metadata_is_not_heard(tmp_path: Path) -> None:
    entry = b"II*\0\x08\0\0\0\x01\0\x0e\x01\x02\0\xff\xff\xff\x7f\0\0\0\x10\0\0\0\0"  # a text of 2 GB
    Image.new("RGB", (32, 32)).save(tmp_path / "odd.jpg", exif=b"Exif\0\0" + entry)

    def heard(before: str) -> str:
        code = f"import warnings\nfrom stages.data.images import decode\n{before}\ndecode(open('odd.jpg', 'rb').read(), (8, 8))"
        command = [sys.executable, "-c", code]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stderr

    assert heard("pass") == "" and "Warning: " in heard("warnings.resetwarnings()")


def test_a_format_is_told_by_content_and_not_by_name(tmp_path: Path) -> None:
    path = tmp_path / "really_a_jpeg.png"
    path.write_bytes(JPEG)
    assert close(decode(path.read_bytes()), smooth(200, 200))


def test_a_thumbnail_keeps_the_aspect_ratio() -> None:
    assert Image.open(io.BytesIO(thumbnail(encode(Image.fromarray(smooth(40, 80)), "PNG"), 20))).size == (20, 10)
