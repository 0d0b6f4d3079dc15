"""What must never happen: damage that reaches a head. Flipped bits, lost and cut files are noticed, and extracted again."""

import os
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Project, store_of, write_photos

from cache import CacheError, FeatureStore, Manifest
from cache.memo import StatMemo
from cache.skipped import SkippedImages
from stages.data.policy import EXACT
from stages.heads.results import damaged_files, read_result


def flip(path: Path, at: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def read_everything(artifacts: Path) -> dict[str, object]:
    """All that later steps read, by file; a file that is noticed to be damaged gives "detected"."""
    found: dict[str, object] = {}
    folder = next((artifacts / "features").iterdir())
    store = FeatureStore(folder)
    for shard in sorted(folder.glob("shard-*.h5")):
        rows = [digest for digest, (name, _) in store._rows.items() if name == shard.name]
        try:
            entry = store._entries[shard.name]
            found[shard.name] = (rows, entry.labels, entry.paths, entry.class_names, store.read(rows).tobytes())
        except (CacheError, KeyError):
            found[shard.name] = "detected"

    def attempt(name: str, read: Callable[[], object]) -> None:
        try:
            found[name] = read()
        except CacheError:
            found[name] = "detected"

    attempt("spec.json", lambda: FeatureStore(folder).spec)
    attempt("manifest.json", lambda: Manifest.load(artifacts / "manifest.json"))
    attempt("scan-memo.json", lambda: StatMemo(artifacts / "scan-memo.json")._old or "detected")
    attempt("skipped.json", lambda: SkippedImages(artifacts / "skipped.json", EXACT).reasons or "detected")
    for head in sorted((artifacts / "heads").glob("*/")):
        result = read_result(head)
        found[f"{head.name}/result.json"] = result or "detected"
        for name in result["files"] if result else ():
            found[f"{head.name}/{name}"] = "detected" if name in damaged_files(head, result) else "whole"  # type: ignore[arg-type]
    return found


def test_200_random_flips_are_detected_or_change_nothing_that_is_read(built: Project, tmp_path: Path) -> None:
    pristine = tmp_path / "pristine"
    shutil.copytree(built.artifacts, pristine)
    (pristine / "skipped.json").unlink(missing_ok=True)
    reasons = SkippedImages(pristine / "skipped.json", EXACT)
    reasons.reasons = {"ab" * 32: "damaged: truncated"}
    reasons.save()
    expected = read_everything(pristine)
    assert [name for name, value in expected.items() if value == "detected"] == []
    # Weights' records and the report hold nothing that a head or a feature is made of.
    files = [
        p
        for p in sorted(pristine.rglob("*"))
        if p.is_file() and p.name not in (".lock", "index.html") and p.suffix != ".mk"
    ]
    files = [p for p in files if not {"make", "weights"} & set(p.relative_to(pristine).parts)]
    rng = random.Random(1)
    seen: Counter[str] = Counter()
    for i in range(200):
        target = rng.choice(files)
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(pristine, copy)
        path = copy / target.relative_to(pristine)
        if i % 2:  # rot that no stat shows, or a change that one does
            status = path.stat()
            flip(path, rng.randrange(path.stat().st_size), rng.randrange(8))
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        else:
            flip(path, rng.randrange(path.stat().st_size), rng.randrange(8))
        found = read_everything(copy)
        differing = {name for name in expected if found.get(name, "detected") != expected[name]}
        assert all(found.get(name, "detected") == "detected" for name in differing), (target, differing)
        seen["detected" if differing else "harmless"] += 1
        seen[f"{'detected' if differing else 'harmless'} in {target.name}"] += 1
    print(dict(seen))
    assert seen["detected"] > 150


def test_a_damaged_shard_never_reaches_a_head_and_is_extracted_again(project: Project) -> None:
    shard = store_of(project).shards()[1]
    status = shard.stat()
    flip(shard, shard.stat().st_size // 2, 3)
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    project.edit('estimator = "RidgeClassifierCV"', 'estimator = "RidgeClassifier"')
    outcome = project.headstart("heads")
    assert outcome.code == 1 and "damaged" in outcome.out and "run `make features`" in outcome.out
    assert outcome.trained == []
    assert f"16 images to extract, as {shard.name}.damaged is damaged" in project.headstart("status").out
    outcome = project.make("report")
    assert (outcome.extracted, outcome.trained) == (16, ["ridge"]), outcome.out
    assert project.headstart("verify").code == 0
    assert project.make("-q", "report").code == 0


def rot(path: Path, where: int) -> None:
    """Flip a bit as a bad disk does: neither size nor modification time tell of it."""
    status = path.stat()
    flip(path, where, 3)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_rot_that_no_stat_tells_of_is_healed_wherever_it_is_met(project: Project) -> None:
    """While labels are rewritten, while an image is added and compared, and by verify."""
    store = store_of(project)
    for shard in store.shards():
        rot(shard, shard.stat().st_size // 2)
    first = project.photos / store.paths()[store.digests()[0]]
    first.rename(first.with_name("renamed.png"))
    write_photos(project.photos, {"cat": 1}, first=9000)
    (project.photos / "cat" / "cat0.png").rename(project.photos / "cat" / "new.png")
    outcome = project.headstart("features")
    assert outcome.code == 0 and outcome.extracted >= 17, outcome.out
    project.headstart("verify")
    assert project.headstart("features").code == 0
    outcome = project.headstart("verify")
    assert outcome.code == 0 and "rows, 2 heads: 0 problems" in outcome.out, outcome.out


def test_rot_found_by_the_report_and_by_prune(project: Project) -> None:
    shards = store_of(project).shards()
    text = shards[0].read_bytes()
    rot(shards[0], text.index(b'"decode"'))
    (project.artifacts / "report" / "index.html").unlink()
    assert "run `make features`" in project.headstart("report").out
    assert f"as {shards[0].name}.damaged is damaged" in project.headstart("status").out
    rot(shards[1], shards[1].stat().st_size // 2)
    gone = store_of(project).digests()[0]
    (project.photos / store_of(project).paths()[gone]).unlink()
    assert re.search(r"prune: \d+\.\d kB removed", project.headstart("prune", "--yes").out)
    assert store_of(project).set_aside() == [f"{shards[0].name}.damaged", f"{shards[1].name}.damaged"]
    assert "nothing to remove" in project.headstart("prune").out  # kept until their images are extracted again


def test_damaged_predictions_keep_no_head_from_being_trained_anew(project: Project) -> None:
    """They tell what happened to the images since."""
    predictions = project.artifacts / "heads" / "ridge" / "predictions.csv"
    predictions.write_text(predictions.read_text()[:-60] + "\ncut")
    write_photos(project.photos, {"cat": 1}, first=9000)
    assert "stale: images, labels or splits changed" in project.headstart("status").out
    outcome = project.make("heads")
    assert outcome.code == 0 and "ridge" in outcome.trained, outcome.out


def test_a_damaged_spec_is_written_anew(project: Project) -> None:
    spec = store_of(project).folder / "spec.json"
    whole = spec.read_bytes()
    spec.write_bytes(whole[:-9] + b"x" + whole[-8:])
    assert "spec.json is damaged (nothing to extract)" in project.headstart("status").out
    outcome = project.make("features")
    assert (outcome.code, outcome.extracted) == (0, 0) and spec.read_bytes() == whole


@pytest.mark.parametrize(
    "damage", [lambda p: p.unlink(), lambda p: p.write_bytes(p.read_bytes()[:1000])], ids=["missing", "truncated"]
)
def test_a_missing_or_truncated_shard_is_extracted_again(project: Project, damage: Callable[[Path], object]) -> None:
    damage(store_of(project).shards()[0])
    assert project.make("-q", "report").code == 1
    outcome = project.make("report")
    assert (outcome.code, outcome.extracted, outcome.trained) == (0, 16, [])


def test_a_damaged_manifest_without_images_is_named(project: Project) -> None:
    shutil.rmtree(project.photos)
    flip(project.artifacts / "manifest.json", 500, 0)
    outcome = project.headstart("status")
    assert outcome.code == 1 and "manifest.json: expected a manifest, found a damaged file" in outcome.out
