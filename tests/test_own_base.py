"""A base of the user's own, in a Keras file."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import Project, stores, write_photos

from pipeline.config.load import load_config
from stages.bases.frozen import FrozenBase
from stages.bases.weights import Weights
from stages.data.images import decode


def own_model(path: Path, size: int | None = 40) -> keras.Model:
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.layers.Input((size, size, 3)),
            keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="first"),
            keras.layers.Conv2D(16, 3, strides=2, activation="relu", name="second"),
            keras.layers.GlobalAveragePooling2D(name="pooled"),
        ]
    )
    model.save(path)
    return model


OWN = '[data]\nroot = "photos"\n[base]\nname = "file:mine.keras"\ninput_size = 40\nprecision = "float32"\npreprocess = "tf"\n'
HEAD = '[heads.ridge]\nkind = "sklearn"\nestimator = "RidgeClassifier"\n'


def test_a_base_of_ones_own(tmp_path: Path) -> None:
    project = Project(tmp_path).create(OWN + HEAD)
    write_photos(project.photos, {"cat": 12, "dog": 12})
    model = own_model(tmp_path / "mine.keras")
    outcome = project.make("report")
    assert outcome.code == 0 and outcome.extracted == 24, outcome.out
    (store,) = stores(project).values()
    image = sorted(project.photos.glob("cat/*"))[0]
    digest = next(digest for digest, path in store.paths().items() if path == f"cat/{image.name}")
    pixels = decode(image.read_bytes(), (40, 40)).astype(np.float32)[None]
    expected = model.predict(pixels / 127.5 - 1, verbose=0)[0]
    np.testing.assert_allclose(store.read([digest])[0], expected, rtol=2e-3, atol=1e-5)
    # The same file under another name, then another model under the same name.
    (tmp_path / "mine.keras").rename(tmp_path / "other.keras")
    project.edit("file:mine.keras", "file:other.keras")
    assert project.headstart("features").extracted == 0
    keras.Sequential([keras.layers.Input((40, 40, 3)), keras.layers.Flatten()]).save(tmp_path / "other.keras")
    assert "24 images never extracted with this base" in project.headstart("status").out


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: own_model(path, 32), r"expected images of 32×32, found input_size = \[40, 40\]; set input_size = \[32, 32\]"),
        (lambda path: path.write_bytes(b"no model"), "found another kind of file"),
        (
            lambda path: keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)]).save(path),
            r"expected a model of RGB images \(height, width, 3\) with one output",
        ),
    ],
    ids=["another size", "no model", "no images"],
)  # fmt: skip
def test_a_base_of_ones_own_that_cannot_be_used_is_one_line(tmp_path: Path, make: object, message: str) -> None:
    from cache.errors import BaseError

    make(tmp_path / "mine.keras")  # type: ignore[operator]
    (tmp_path / "headstart.toml").write_text(OWN + HEAD)
    spec = load_config(tmp_path / "headstart.toml").bases["base"]
    with pytest.raises(BaseError, match=message):
        FrozenBase(spec, Weights(spec, tmp_path / "weights"))
