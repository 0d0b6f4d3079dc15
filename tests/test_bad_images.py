"""Images that fight back: decoded by the policy, or skipped with a reason that a person understands."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import CONFIG, Project, write_photos
from PIL import Image
from test_images import JPEG, PNG, bomb, encode, smooth

from cache import DataError, FeatureStore, Manifest
from cache.files import sha256_file
from stages.data.scan import scan
from stages.data.spec import DataSpec

ODD_NAMES = [
    b"new\nline.png",
    b"two  spaces .png",
    "emoji \U0001f415.png".encode(),
    b"not utf-8 \xff\xfe.png",
    b"quote\"s'&<b>.png",
    b"-rf.png",
]


def turned(orientation: int) -> bytes:
    undo = {
        2: 0,
        3: 3,
        4: 1,
        5: 5,
        6: 2,
        7: 6,
        8: 4,
    }  # Pillow's numbers of the transpositions that undo each orientation
    image = Image.fromarray(smooth(64, 64))
    if orientation in undo:
        image = image.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(image, "PNG", exif=exif)


def ycck() -> bytes:
    """A CMYK JPEG whose Adobe marker says that its colours are YCCK."""
    data = bytearray(encode(Image.fromarray(smooth()).convert("CMYK"), "JPEG"))
    at = data.index(b"Adobe")
    data[at + 11] = 2
    return bytes(data)


GOOD = {
    "cmyk.jpg": encode(Image.fromarray(smooth()).convert("CMYK"), "JPEG"),
    "ycck.jpg": ycck(),
    "a_jpeg.png": JPEG,
    "palette.png": encode(Image.fromarray(smooth()).quantize(16), "PNG"),
    "alpha.png": encode(Image.fromarray(np.dstack([smooth(), smooth()[..., 0]]), "RGBA"), "PNG"),
    "grey_alpha.png": encode(Image.fromarray(smooth()[..., :2].copy(), "LA"), "PNG"),
    "sixteen.png": encode(Image.fromarray(smooth()[..., 0].astype(np.uint16) * 257), "PNG"),
    "one_bit.png": encode(Image.fromarray(smooth()).convert("1"), "PNG"),
    "animated.gif": encode(
        Image.new("RGB", (8, 8), "red"), "GIF", save_all=True, append_images=[Image.new("RGB", (8, 8), "blue")]
    ),
    "animated.webp": encode(
        Image.new("RGB", (8, 8), "red"), "WEBP", save_all=True, append_images=[Image.new("RGB", (8, 8), "blue")]
    ),
    "long.png": encode(Image.new("RGB", (10_000, 1), "red"), "PNG"),
    "tall.png": encode(Image.new("RGB", (1, 10_000), "red"), "PNG"),
} | {f"orientation{i}.png": turned(i) for i in range(1, 9)}
BAD = {
    "truncated.jpg": (JPEG[: len(JPEG) // 2], "damaged: "),
    "truncated.png": (PNG[: len(PNG) // 2], "damaged: "),
    "empty.jpg": (b"", "the file is empty"),
    "text.jpg": (b"hello", "not an image that can be read"),
    "bomb.png": (bomb(), "more pixels than the limit"),
}  # fmt: skip


def test_a_folder_full_of_them(tmp_path: Path) -> None:
    project = Project(tmp_path).create(CONFIG.replace('name = "VGG16"', 'name = "VGG16"\nlayer = "block2_pool"'))
    write_photos(project.photos, {"cat": 20, "dog": 20})
    odd = project.photos / "cat"
    for name, data in GOOD.items() | {(name, data) for name, (data, _) in BAD.items()}:
        (odd / name).write_bytes(data)
    for i, raw in enumerate(ODD_NAMES):
        Path(os.fsdecode(os.fsencode(odd) + b"/" + raw)).write_bytes(
            encode(Image.new("RGB", (9, 9), (i, 200, 9)), "PNG")
        )
    (odd / "a_folder.jpg").mkdir()
    (odd / "broken.jpg").symlink_to(odd / "nothing.jpg")
    (odd / "loop.jpg").symlink_to(odd / "loop.jpg")
    (odd / "up").symlink_to(project.photos)
    os.mkfifo(odd / "pipe.jpg")

    outcome = project.make("report")
    assert outcome.code == 0, outcome.out
    manifest = Manifest.load(project.artifacts / "manifest.json")
    page = (project.artifacts / "report" / "index.html").read_text(encoding="utf-8")
    status = project.headstart("status").out
    expected = {name: reason for name, (_, reason) in BAD.items()} | {
        "broken.jpg": "a link to a file that does not exist",
        "loop.jpg": "a link",
        "up": "a link to a folder that contains it",
        "pipe.jpg": "not a regular file",
    }
    assert manifest.skipped.keys() == {f"cat/{name}" for name in expected}
    for name, reason in expected.items():
        assert reason in manifest.skipped[f"cat/{name}"]
        assert f"skipped: cat/{name}: {manifest.skipped[f'cat/{name}']}" in status
        assert name in page
    records = {record.path: record for record in manifest.records}
    for name in GOOD:
        assert f"cat/{name}" in records
    for raw in ODD_NAMES:
        assert f"cat/{os.fsdecode(raw)}" in records
    assert outcome.extracted == 40 + len(GOOD) + len(ODD_NAMES)
    assert project.make("-q", "report").code == 0

    store = FeatureStore(next((project.artifacts / "features").iterdir()))
    assert set(store.paths().values()) == {record.path for record in manifest.by_digest.values()}
    eight = store.read(records[f"cat/orientation{i}.png"].sha256 for i in range(1, 9))
    for features in eight[1:]:
        np.testing.assert_allclose(features, eight[0], rtol=2e-3, atol=2e-3)
    outcome = project.headstart("predict", "photos/cat", "--csv", "out.csv")
    assert outcome.code == 1 and "out.csv: 46 of 55 predictions written" in outcome.out, outcome.out
    rows = (project.folder / "out.csv").read_bytes()
    assert b"not utf-8 \xff\xfe" in rows


def test_copies_with_the_same_and_with_different_labels_are_extracted_once(project: Project) -> None:
    data = (project.photos / "cat" / "cat0.png").read_bytes()
    (project.photos / "cat" / "copy.png").write_bytes(data)
    assert project.make("features").extracted == 0
    assert "1 of them copies of others" in project.headstart("status").out
    (project.photos / "dog" / "copy.png").write_bytes(data)
    outcome = project.make("report")
    assert outcome.extracted == 0
    assert "identical files with different labels: cat/cat0.png, cat/copy.png, dog/copy.png" in outcome.out
    assert "dog/copy.png" in (project.artifacts / "report" / "index.html").read_text()


def test_an_empty_folder_becomes_a_class_with_its_first_images(project: Project) -> None:
    (project.photos / "owl").mkdir()
    assert project.make("-q", "report").code == 0
    write_photos(project.photos, {"owl": 20}, first=3000)
    outcome = project.make("report")
    assert outcome.extracted == 20 and outcome.trained == ["logreg", "ridge"]
    assert json.loads((project.artifacts / "heads" / "ridge" / "result.json").read_text())["classes"] == [
        "cat",
        "dog",
        "owl",
    ]


def test_a_replacement_of_the_same_size_and_time_is_found_by_rehash(project: Project) -> None:
    target = project.photos / "cat" / "cat3.bmp"
    Image.fromarray(smooth(20, 20)).save(target)
    old = 1_500_000_000 * 10**9
    os.utime(target, ns=(old, old))
    assert project.make("report").extracted == 1
    out = io.BytesIO()
    Image.fromarray(smooth(20, 20)[::-1]).save(out, "BMP")
    with open(target, "r+b") as file:  # in place: the same inode
        file.write(out.getvalue())
    os.utime(target, ns=(old, old))
    assert project.make("features").extracted == 0
    assert project.make("features", "REHASH=1").extracted == 1
    assert project.make("-q", "features").code == 0


def test_a_change_within_the_clocks_tick_is_found_without_rehash(project: Project) -> None:
    """The racy-timestamp rule: a file as young as the memo is read again, even if size, time and inode stand."""
    target = project.photos / "cat" / "young.bmp"
    project.headstart("status")
    Image.fromarray(smooth(20, 20)).save(target)
    status = target.stat()
    assert "1 image added" in project.headstart("status").out  # the memo is now as young as the file
    out = io.BytesIO()
    Image.fromarray(smooth(20, 20)[::-1]).save(out, "BMP")
    with open(target, "r+b") as file:
        file.write(out.getvalue())
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert project.make("features").extracted == 1
    records = {record.path: record for record in Manifest.load(project.artifacts / "manifest.json").records}
    assert records["cat/young.bmp"].sha256 == sha256_file(target)


def test_on_bad_image_fail_stops_at_the_first(project: Project) -> None:
    project.edit("seed = 1", 'seed = 1\non_bad_image = "fail"')
    (project.photos / "cat" / "bad.jpg").write_bytes(b"bad")
    for _ in range(2):
        outcome = project.make("features")
        assert outcome.code != 0 and "photos/cat/bad.jpg: not an image that can be read" in outcome.out
        assert 'set data.on_bad_image = "skip"' in outcome.out
    (project.photos / "cat" / "bad.jpg").unlink()
    assert project.make("features").code == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not read")
def test_unreadable_files_are_skipped_with_the_reason_as_nobody(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    write_photos(root, {"cat": 20, "dog": 20})
    os.chmod(root / "cat" / "cat0.png", 0)
    os.chmod(root / "dog", 0o700)
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/tmp") and folder != Path("/"):
            os.chmod(folder, 0o755)
    data = DataSpec(root=root)
    os.seteuid(65534)
    try:
        with pytest.raises(DataError, match=r"one class only \(cat\)"):
            scan(data, tmp_path / "cache", {})
        os.seteuid(0)
        os.chmod(root / "dog", 0o755)
        os.seteuid(65534)
        manifest = scan(data, tmp_path / "cache", {})
    finally:
        os.seteuid(0)
    assert manifest.skipped == {"cat/cat0.png": "cannot be read: Permission denied"}


def test_many_files_of_one_reason_hide_no_other(project: Project) -> None:
    """Fifty lines of one reason filled the screen of every command, and the one that mattered was not among them."""
    for i in range(60):
        (project.photos / "cat" / f"gone{i:02d}.jpg").symlink_to(project.photos / "nothing.jpg")
    for i in range(11):  # a line that says that there is one more would save none
        (project.photos / "dog" / f"cut{i:02d}.jpg").write_bytes(JPEG[: len(JPEG) // 2 + i])
    os.mkfifo(project.photos / "dog" / "pipe.jpg")
    project.headstart("features")
    told = [line for line in project.headstart("status").out.splitlines() if "skipped: " in line]
    assert told[0] == "skipped: cat/gone00.jpg: a link to a file that does not exist"
    assert told[10] == "skipped: … and 50 more like this one, see the report"
    assert [line.split(": ")[1] for line in told[11:22]] == [f"dog/cut{i:02d}.jpg" for i in range(11)]
    assert len(told) == 23 and told[22].startswith("skipped: dog/pipe.jpg: ")
