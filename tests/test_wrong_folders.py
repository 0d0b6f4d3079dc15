"""What is said of a folder that holds no features, by the store and by ``load_features``."""

from pathlib import Path

import pytest

from cache import CacheError, FeatureStore
from headstart import load_features


def test_a_folder_that_is_no_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, found in (("nosuch", "nothing"), (".", "a folder without one"), ("file", "a file")):
        said = rf"expected the folder of a feature store \(with spec.json\), found {found}; `make status` names"
        for asked in (lambda store: store.read(["0" * 64]), lambda store: store.spec):
            with pytest.raises(CacheError, match=said):
                asked(FeatureStore(tmp_path / name))


def test_load_features_names_a_folder_that_is_no_store_or_has_no_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    head = tmp_path / "heads" / "dense"
    head.mkdir(parents=True)
    for wrong in ("/", ".", head):
        with pytest.raises(CacheError, match="expected the folder of a feature store .*, found a folder without one"):
            load_features(wrong, "train")
    FeatureStore("moved").create({"base": "VGG16"})
    with pytest.raises(CacheError, match="expected the manifest of the feature store moved, found nothing; copy it"):
        load_features("moved", "train")
