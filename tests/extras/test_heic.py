"""HEIC through pi-heif, which decodes and does not encode: the files in ``phone/`` are of one gradient, 60 pixels wide and 40 high, but for one."""

import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import CONFIG, Project, store_of, write_photos
from test_formats import HEIC, PHONE, of_size
from test_images import close, smooth

from stages.audit.pixels import looks
from stages.data.formats import NO_HEIC
from stages.data.images import BadImageError, decode, thumbnail


@pytest.mark.parametrize("name", ["plain", "turned", "ten_bits", "two"])
def test_what_phones_write(name: str) -> None:
    """As it is, turned by its own mark of orientation and that of EXIF, with ten bits a channel, with two images in one file."""
    data = (PHONE / f"{name}.heic").read_bytes()
    assert close(decode(data), smooth()) and decode(data, (20, 30)).shape == (20, 30, 3)
    assert thumbnail(data, 30, quick=True).startswith(b"\xff\xd8")


def test_transparency_lies_over_white_and_ten_bits_of_grey_are_scaled() -> None:
    found = decode((PHONE / "alpha.heic").read_bytes())
    assert close(found[:20], smooth()[:20]) and (found[20:] == 255).all()
    grey = decode((PHONE / "grey_ten_bits.heic").read_bytes())
    assert close(grey, np.repeat(smooth()[..., :1], 3, axis=2), 1)


@pytest.mark.parametrize("end", range(0, len(HEIC), 60))
def test_a_truncated_file_is_damaged(end: int) -> None:
    with pytest.raises(BadImageError, match="^(the file is empty|damaged: .*)$"):
        decode(HEIC[:end], (8, 8))


def test_a_header_of_another_size_is_refused() -> None:
    square = (PHONE / "square.heic").read_bytes()  # 64 pixels, which is not cut out of more
    assert decode(square).shape == (64, 64, 3)
    with pytest.raises(BadImageError, match="more pixels than the limit of 178,956,970"):
        decode(of_size(square, 20_000), (8, 8))
    for data in (of_size(square, 1), of_size(square, 10_000), of_size(HEIC, 2**31)):
        with pytest.raises(BadImageError, match="damaged: "):
            decode(data, (8, 8))


def test_the_audit_looks_at_it(tmp_path: Path) -> None:
    seen, problems = looks({"digest": "plain.heic"}, PHONE, tmp_path / "pixels.json")
    assert problems == {} and seen["digest"][:2] == (60, 40)


def test_it_is_tried_again_once_the_package_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project(tmp_path).create(CONFIG.replace('name = "VGG16"', 'name = "VGG16"\nlayer = "block2_pool"'))
    write_photos(project.photos, {"cat": 20, "dog": 20})
    (project.photos / "cat" / "phone.heic").write_bytes(HEIC)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pi_heif", None)
        outcome = project.headstart("features")
        assert outcome.code == 0 and outcome.extracted == 40, outcome.out
        assert f"skipped: cat/phone.heic: {NO_HEIC}" in outcome.out
        assert project.headstart("features").out.rstrip().endswith("features: up to date")
        assert f"skipped: cat/phone.heic: {NO_HEIC}" in project.headstart("status").out
    assert "1 image added" in project.headstart("status").out
    outcome = project.headstart("features")
    assert outcome.extracted == 1 and "skipped:" not in outcome.out, outcome.out
    assert "cat/phone.heic" in store_of(project).paths().values()
    assert project.headstart("features").out.rstrip().endswith("features: up to date")
