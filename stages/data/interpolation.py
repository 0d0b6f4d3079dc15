"""Resizing as Keras does it: between neighbouring pixels alone, or antialiased, and rounded once, at the end.

Pillow rounds to whole numbers between rows and columns, and cuts the fractions off where it does not antialias.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CUBIC = -0.5  # a of R. Keys, "Cubic convolution interpolation for digital image processing", 1981


def resampled(
    image: Image.Image, size: tuple[int, int], box: tuple[float, ...], kernel: str, antialias: bool
) -> Image.Image:
    """The part of an RGB image in ``box`` (left, top, right, bottom) at ``size`` = (width, height)."""
    if antialias:
        planes = [plane.convert("F").resize(size, Image.Resampling[kernel.upper()], box) for plane in image.split()]  # type: ignore[arg-type]
        found = np.stack([np.asarray(plane, np.float64) for plane in planes], axis=-1)
    else:
        left, top, right, bottom = box
        columns, across = _taps(size[0], left, right, image.width, kernel)
        rows, down = _taps(size[1], top, bottom, image.height, kernel)
        near = np.asarray(image)[rows[:, :, None, None], columns]
        found = np.einsum("htwuc,ht,wu->hwc", near, down, across, optimize=True)
    return Image.fromarray(np.clip(np.rint(found), 0, 255).astype(np.uint8))


def _taps(
    count: int, start: float, end: float, length: int, kernel: str
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Which old pixels each of ``count`` new ones is made of, and their shares; beyond the edge there are none."""
    at = start + (np.arange(count) + 0.5) * (end - start) / count - 0.5
    first = np.floor(at).astype(int)
    wide = 2 if kernel == "bicubic" else 1
    taps = first[:, None] + np.arange(1 - wide, wide + 1)
    distance = np.abs(at[:, None] - taps)
    if kernel == "bicubic":
        d, a = distance, CUBIC
        shares = np.where(
            d < 1, ((a + 2) * d - (a + 3)) * d * d + 1, np.where(d < 2, a * (((d - 5) * d + 8) * d - 4), 0)
        )
    else:
        shares = np.maximum(1 - distance, 0)
    shares = np.where((taps >= 0) & (taps < length), shares, 0)
    return np.clip(taps, 0, length - 1), shares / shares.sum(axis=1, keepdims=True)
