"""Resizing in a model is that of files."""

import numpy as np
import pytest
from PIL import Image

from stages.bases.backend import load_keras
from stages.data.policy import Resize
from stages.data.resizing import resized as on_file
from stages.export.resizing import goes_down, resized

SIZES = [(100, 130), (20, 30), (40, 48), (301, 200), (31, 47), (1, 1), (3, 500)]
HOWS = [
    Resize(),
    Resize("squash", 0.9),
    Resize("shortest", 0.875),
    Resize("shortest", 0.95, "bicubic"),
    Resize("crop"),
    Resize("crop", filter="bicubic", antialias=False),
    Resize("stretch", antialias=False),
    *(Resize(filter=name) for name in ("nearest", "box", "hamming", "lanczos")),
]


@pytest.mark.parametrize("how", HOWS, ids=lambda how: f"{how.mode} {how.crop:g} {how.filter} {how.antialias}")
def test_resizing_in_the_model_is_that_of_files(how: Resize) -> None:
    keras = load_keras()
    images = keras.Input((None, None, 3), dtype="uint8")
    model = keras.Model(images, resized(images, (40, 48), how))
    rng = np.random.default_rng(0)
    for height, width in SIZES:
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        expected = np.asarray(on_file(Image.fromarray(pixels), (40, 48), how), np.float32)
        found = keras.ops.convert_to_numpy(model(pixels[None]))[0]
        away = np.abs(found - expected)
        # Pillow resizes rows first where that is less work, and rounds in between. A box ends at a pixel, or just beside it.
        most = {"nearest": 0, "box": 255}.get(how.filter, 2)
        assert found.shape == expected.shape and away.max() <= most and away.mean() < 1
        if how == Resize() and not goes_down((height, width), (40, 48)):
            assert away.max() <= 1 and away.mean() < 0.03
