"""Projects with a head that is fine-tuned, for the tests of that."""

from pathlib import Path

from conftest import CONFIG, Project, write_photos

from stages.bases.backend import load_keras

BASE = CONFIG[: CONFIG.index("[heads.logreg]")]
HEADS = """
[heads.small]
kind = "dense"
units = [8]
dropout = 0.0
epochs = 3
learning_rate = 1e-3

[heads.tuned]
kind = "finetune"
head = "small"
from = {start}
epochs = 3
batch_size = 8
learning_rate = {rate}
"""
TINY = (
    'name = "VGG16"\ninput_size = 32\nweights = "random"',
    'name = "file:tiny.keras"\npreprocess = "tf"\nlayers = ["block1_out", "block3_out"]\ninput_size = 32',
)
VGG = ('name = "VGG16"', 'name = "VGG16"\nlayers = ["block4_pool", "block5_pool"]')


def made(folder: Path, base: tuple[str, str], start: str, rate: float, images: int = 18, **others: str) -> Project:
    """A project that is up to date, with a dense head and one that is fine-tuned."""
    text = BASE.replace(*base).replace("shard_images", 'dtype = "float32"\nshard_images')
    project = Project(folder).create(text + HEADS.format(start=start, rate=rate))
    if base == TINY:
        write_tiny(folder / "tiny.keras")
    write_photos(project.photos, {"cat": images, "dog": images, **dict.fromkeys(others, images)})
    return project


def write_tiny(path: Path) -> None:
    """A base that is quick to train, with what larger ones have: blocks, shortcuts and batch normalisation."""
    keras = load_keras()
    keras.utils.set_random_seed(1)
    images = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="block1_out")(images)
    for block, filters in (("block2", 8), ("block3", 8)):
        y = keras.layers.Conv2D(filters, 3, padding="same", name=f"{block}_conv")(x)
        y = keras.layers.BatchNormalization(name=f"{block}_bn")(y)
        x = keras.layers.Add(name=f"{block}_add")([x, y])
        x = keras.layers.ReLU(name=f"{block}_out")(x)
    keras.Model(images, x).save(path)
