"""Photographs for the benchmarks: crops of the two that come with scikit-learn, as JPEG files of about 500×375 pixels."""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

CLASSES = 2


def write_photos(folder: Path, count: int, size: tuple[int, int] = (500, 375), quality: int = 90) -> None:
    """Write ``count`` different JPEG files into one folder for each class; detail and noise are a photograph's."""
    rng = np.random.default_rng(0)
    sources = [Image.fromarray(each) for each in load_sample_images().images]
    for i in range(count):
        source = sources[i % len(sources)]
        share = rng.uniform(0.75, 0.98)
        width, height = round(source.width * share), round(source.height * share)
        left, top = rng.integers(0, source.width - width + 1), rng.integers(0, source.height - height + 1)
        crop = source.crop((left, top, left + width, top + height)).resize(size, Image.Resampling.BICUBIC)
        path = folder / f"class{i % CLASSES}" / f"{i:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        crop.save(path, quality=quality)
