"""The exact search for like images, and `headstart similar`."""

import csv
import shutil
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  (of the shards)
import numpy as np
import pytest
from conftest import Project, failed, store_of, write_image
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from cache import Manifest
from cache.derived import write_derived
from cache.files import sha256_file
from stages.search.index import as_searched
from stages.search.nearest import _as_float32, lengths_of, nearest


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 700),
    st.integers(1, 40),
    st.integers(1, 30),
    st.sampled_from([np.float16, np.float32]),
    st.integers(0, 99),
)
def test_they_are_those_of_scikit_learn(n: int, d: int, k: int, dtype: type, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(0.5, 1, (n, d)).astype(dtype)
    query = rng.normal(0.5, 1, d).astype(np.float32)
    found = nearest(query, rows, k)
    search = NearestNeighbors(n_neighbors=min(k, n), algorithm="brute", metric="cosine").fit(rows.astype(np.float64))
    distance = search.kneighbors(query[None].astype(np.float64))[0][0]
    np.testing.assert_allclose(found.similarity, 1 - distance, atol=1e-9)
    # Equally near ones may stand in another order; each row has the cosine that is told of it, and none stands there twice.
    own = rows[found.position].astype(np.float64)
    np.testing.assert_allclose(
        found.similarity, own @ query / np.linalg.norm(own, axis=1) / np.linalg.norm(query), atol=1e-7
    )
    assert len(set(found.position.tolist())) == len(found.position)
    again = nearest(query, rows, k, lengths_of(rows))
    assert (again.position == found.position).all()


def test_all_finite_float16_become_the_same_float32() -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    rows = every[np.isfinite(every)][None]
    found = _as_float32(rows, np.empty(rows.shape, np.float32))
    assert (found == rows.astype(np.float32)).all() and (np.signbit(found) == np.signbit(rows)).all()


def test_a_row_of_zeros_is_like_nothing_and_of_equal_rows_the_first_stands_first() -> None:
    rows = np.zeros((50, 4), np.float16)
    rows[10:] = 1
    found = nearest(np.ones(4, np.float32), rows, 50)
    assert found.position.tolist() == [*range(10, 50), *range(10)]
    np.testing.assert_allclose(found.similarity, [1.0] * 40 + [0.0] * 10)
    assert len(nearest(np.ones(4, np.float32), rows[:0], 3).position) == 0


@pytest.fixture(scope="module")
def searched(built: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("search") / "project")
    shutil.copytree(built.folder, project.folder)
    return project


def test_the_most_like_images_are_printed_and_written(searched: Project, tmp_path: Path) -> None:
    asked = write_image(tmp_path / "new.png", 77)
    copy = searched.photos / "cat" / "cat3.png"
    out = tmp_path / "found.csv"
    page = tmp_path / "found.html"
    done = searched.headstart("similar", str(asked), str(copy), "-k", "3", "--csv", str(out), "--page", str(page))
    assert done.code == 0, done.out
    assert "same file as cat/cat3.png (cat, " in done.out
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == ["1", "2", "3"] * 2
    assert "cat/cat3.png" not in [row["path"] for row in rows[3:]], "an image is not like itself"
    # As scikit-learn finds them among the features of all images.
    store, manifest = store_of(searched), Manifest.load(searched.artifacts / "manifest.json")
    paths = {record.path: record for record in manifest.records}
    unit = as_searched(store.read(store.digests()))
    names = [store.paths()[digest] for digest in store.digests()]
    cosines = dict(zip(names, unit @ unit[names.index("cat/cat3.png")], strict=True))
    expected = sorted((name for name in names if name != "cat/cat3.png"), key=lambda name: -cosines[name])[:3]
    assert [row["path"] for row in rows[3:]] == expected
    for row in rows[3:]:
        assert float(row["similarity"]) == pytest.approx(cosines[row["path"]], abs=1e-3)
        assert (row["label"], row["split"]) == (paths[row["path"]].label, paths[row["path"]].split)
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") == 8 and "<script" not in text
    assert len(store_of(searched)) == len(store), "the features of what is asked for are not kept"


def test_what_cannot_be_searched_for_is_one_line(searched: Project, tmp_path: Path) -> None:
    bad = tmp_path / "text.jpg"
    bad.write_text("no image")
    good = write_image(tmp_path / "new.png", 78)
    done = searched.headstart("similar", str(bad), str(good), "-k", "1")
    assert done.code == 1 and "text.jpg: skipped: " in done.out and "new.png: most like" in done.out
    assert "--base: no base 'vgg'" in failed(searched.headstart("similar", str(good), "--base", "vgg"))
    assert "--layer: base extracts no layer 'x'" in failed(searched.headstart("similar", str(good), "--layer", "x"))
    shutil.rmtree(searched.artifacts / "features")
    assert "found none; run `make features`" in failed(searched.headstart("similar", str(good)))


def found(project: Project, asked: Path) -> list[str]:
    """All others, for an image of the data, for which no base is needed."""
    done = project.headstart("similar", str(asked), "-k", "40")
    lines = [line for line in done.out.splitlines() if line.startswith("  ")]
    assert done.code == 0 and len(lines) == 39, done.out
    return lines


def test_what_is_searched_is_kept_and_made_anew_where_it_does_not_fit(project: Project, tmp_path: Path) -> None:
    asked, store = project.photos / "cat" / "cat3.png", store_of(project)
    expected, (kept,) = found(project, asked), store.folder.glob("*.rows")
    # It is read in the place of the shards: what these say now is not what was written, which would be an error.
    shutil.copytree(store.folder, tmp_path / "whole")
    for shard in store.shards():
        if shard.name != store.shard_of(sha256_file(asked)):
            with h5py.File(shard, "r+") as file:
                file["features"][...] = 0
    assert found(project, asked) == expected
    shutil.copytree(tmp_path / "whole", store.folder, dirs_exist_ok=True)
    # Damaged anywhere, cut off, or of other features, it is made anew.
    content = kept.read_bytes()
    flipped = [content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] for at in (7, 150, 800, len(content) - 1)]
    for bad in (*flipped, content[:-100], b"", b"\x93NUMPY"):
        kept.write_bytes(bad)
        assert found(project, asked) == expected and kept.read_bytes() == content
    write_derived(kept, "another key", store.digests(), np.zeros((40, 512), np.float16))
    assert found(project, asked) == expected and kept.read_bytes() == content


def test_what_is_kept_follows_the_images(project: Project) -> None:
    asked = project.photos / "cat" / "cat3.png"
    before = found(project, asked)
    (kept,) = store_of(project).folder.glob("*.rows")
    write_image(project.photos / "cat" / "a.png", 77)  # in front of others
    (project.photos / "cat" / "cat0.png").unlink()
    assert project.headstart("features").code == 0
    now = found(project, asked)
    kept.unlink()
    assert now == found(project, asked)
    assert any("cat/a.png" in line for line in now) and not any("cat/cat0.png" in line for line in now)
    assert any("cat/cat0.png" in line for line in before)
    assert project.headstart("prune", "--yes").code == 0 and not kept.exists(), (
        "it has the row of an image that is gone"
    )
    assert found(project, asked) == now
