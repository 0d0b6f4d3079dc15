"""Projects with a head that is fine-tuned, for the tests of that."""

from pathlib import Path

from conftest import CONFIG, Project, write_photos

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
VGG = ('name = "VGG16"', 'name = "VGG16"\nlayers = ["block4_pool", "block5_pool"]')


def made(folder: Path, base: tuple[str, str], start: str, rate: float, images: int = 18, **others: str) -> Project:
    """A project that is up to date, with a dense head and one that is fine-tuned."""
    text = BASE.replace(*base).replace("shard_images", 'dtype = "float32"\nshard_images')
    project = Project(folder).create(text + HEADS.format(start=start, rate=rate))
    write_photos(project.photos, {"cat": images, "dog": images, **dict.fromkeys(others, images)})
    return project
