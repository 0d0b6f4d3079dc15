"""A cache travels: other paths, times, zones and locales; and says so where features come out differently."""

import shutil
from pathlib import Path

import h5py
import numpy as np
from conftest import Project, write_image, write_photos

from cache import FeatureStore
from cache.shard import read_info, read_shard, write_shard


def store_of(project: Project) -> FeatureStore:
    return FeatureStore(next((project.artifacts / "features").iterdir()))


def test_a_copy_elsewhere_without_images_in_another_zone_and_locale(project: Project, tmp_path: Path) -> None:
    other = Project(tmp_path / "andere Stelle ✈").create(project.config.read_text())
    shutil.copytree(project.artifacts, other.artifacts, copy_function=shutil.copyfile)
    away = {"TZ": "Pacific/Auckland", "LC_ALL": "C", "LANG": "tr_TR.UTF-8"}
    outcome = other.make("report", env=away)
    assert outcome.code == 0 and (outcome.extracted, outcome.trained, outcome.reported) == (0, [], False), outcome.out
    other.edit('estimator = "RidgeClassifierCV"', 'estimator = "RidgeClassifier"')
    outcome = other.make("report", env=away)
    assert outcome.code == 0 and (outcome.extracted, outcome.trained, outcome.reported) == (0, ["ridge"], True), (
        outcome.out
    )


def disturb(store: FeatureStore, by: float) -> None:
    """Make the stored features what another machine might have computed."""
    for path in store.shards():
        features, table = read_shard(path)
        info = read_info(path)
        write_shard(path, (features * (1 + by)).astype(features.dtype), table, info)


def test_drift_beyond_the_tolerance_stops_before_anything_is_added(project: Project) -> None:
    disturb(store_of(project), 0.05)
    write_image(project.photos / "cat" / "new.png", 900)
    outcome = project.make("features")
    (line,) = [line for line in outcome.out.splitlines() if "headstart: " in line]
    assert outcome.code != 0 and outcome.extracted == 0
    assert (
        "differ from those stored (float32 on CPU, " in line
        and "keras 3" in line
        and "by 4.7" in line
        and "--allow-drift" in line
    )
    assert len(store_of(project)) == 40

    outcome = project.headstart("features", "--allow-drift")
    assert outcome.code == 0 and outcome.extracted == 1 and "added all the same" in outcome.out
    last = read_info(store_of(project).shards()[-1])
    assert last.drift["allowed"] and 0.04 < last.drift["largest"] < 0.05


def test_rows_that_are_whole_and_wrong_are_found_by_computing_them_again(project: Project) -> None:
    outcome = project.headstart("verify", "--images")
    assert outcome.code == 0 and "VGG16, block5_pool: 32 of 40 rows computed again" in outcome.out, outcome.out
    # One run that went wrong: a shard of three, with checksums that are right.
    path = store_of(project).shards()[1]
    features, table = read_shard(path)
    features = features.copy()
    features[:] = features[::-1]
    write_shard(path, features, table, read_info(path))
    assert project.headstart("verify").code == 0 and project.make("-q", "report").code == 0
    outcome = project.headstart("verify", "--images")
    (line,) = [line for line in outcome.out.splitlines() if line.startswith("wrong: ")]
    assert outcome.code == 1 and f"{store_of(project).folder}: features computed here (float32 on CPU, " in line
    assert (
        any(name in line for name in table.paths)
        and "expected at most 0.2%; extract anew into another cache.dir" in line
    )
    # The remedy.
    project.edit("[cache]", '[cache]\ndir = "anew"')
    assert project.make("report").code == 0 and project.headstart("verify", "--images").code == 0


def test_what_cannot_be_compared_with_images_is_not_called_right(project: Project) -> None:
    for i, path in enumerate(sorted(project.photos.glob("*/*.png"))):
        write_image(path, 7000 + i)
    outcome = project.headstart("verify", "--images")
    assert outcome.code == 1 and "block5_pool: none of the 40 images that are stored can be read here" in outcome.out
    shutil.rmtree(project.photos)
    outcome = project.headstart("verify", "--images")
    assert (
        outcome.code == 1
        and "photos: expected the images, found none; run verify --images where they are" in outcome.out
    )
    assert project.headstart("verify").code == 0


def test_layers_without_features_yet_are_said(project: Project) -> None:
    project.edit('name = "VGG16"', 'name = "VGG16"\nlayers = ["block4_pool", "block5_pool"]')
    outcome = project.headstart("verify", "--images")
    assert outcome.code == 0 and "VGG16, block4_pool: nothing is stored yet" in outcome.out
    assert "VGG16, block5_pool: 32 of 40 rows" in outcome.out


def test_drift_within_the_tolerance_is_recorded(project: Project) -> None:
    write_image(project.photos / "cat" / "new.png", 900)
    assert project.headstart("features").extracted == 1
    first, *_, last = (read_info(path) for path in store_of(project).shards())
    assert first.drift == {}
    assert last.drift["rows"] == 4 and last.drift["largest"] < 1e-3 and not last.drift["allowed"]


def test_new_images_without_any_old_one_cannot_be_compared_and_say_so(project: Project) -> None:
    shutil.rmtree(project.photos)
    write_photos(project.photos, {"cat": 20, "dog": 20}, first=5000)
    outcome = project.headstart("features")
    assert outcome.extracted == 40 and "nothing can be compared" in outcome.out


def test_a_cache_of_another_schema_is_named(project: Project) -> None:
    store = store_of(project)
    spec = store.spec
    shutil.move(store.folder, store.folder.with_name("vgg16-block5_pool-32-000000000000"))
    FeatureStore(store.folder.with_name("vgg16-block5_pool-32-000000000000")).create(spec | {"schema": 0})
    assert (
        "vgg16-block5_pool-32-000000000000 was written with schema 0, this headstart has schema 1"
        in project.headstart("status").out
    )


def test_a_shard_of_another_schema_is_named_and_left_alone(project: Project) -> None:
    shard = store_of(project).shards()[0]
    with h5py.File(shard, "r+") as file:
        file.attrs["schema_version"] = 2
    for command in ("status", "features"):
        outcome = project.headstart(command)
        assert outcome.code == 1 and "expected a shard of schema 1, found schema 2" in outcome.out
    assert shard.exists()


def test_values_beyond_float16_are_stored_as_float32_and_said(tmp_path: Path) -> None:
    """Random weights on an early layer with a huge seed would not do it; a base whose weights are scaled up does."""
    import keras

    project = Project(tmp_path).create(
        '[data]\nroot = "photos"\n[base]\ninput_size = 32\nweights = "large.weights.h5"\nprecision = "float32"\n'
    )
    base = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))
    base.set_weights([w * 3 for w in base.get_weights()])
    base.save_weights(tmp_path / "large.weights.h5")
    write_photos(project.photos, {"cat": 20, "dog": 20})
    outcome = project.headstart("features")
    assert outcome.code == 0 and "do not fit float16 (65504): this shard is stored as float32" in outcome.out, (
        outcome.out
    )
    store = store_of(project)
    found, table = read_shard(store.shards()[0])
    assert found.dtype == np.float32 and found.max() > 65504 and len(table.sha256) == 40
