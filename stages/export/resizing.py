"""Images of any size → the input size of a base, as layers and operations of a Keras model: what ``stages.data.resizing`` does to files.

Resizing is linear and separable: a matrix for the columns and one for the rows. They are computed in the model from the size of the
images, as Pillow computes its coefficients. So all formats can hold it, and it comes out as in training, but for single steps of 1/255:
where float32 falls on the other side of a half, and in tall images, whose rows Pillow 13 resizes before their columns (``goes_down``).
"""

import math
from typing import Any, NamedTuple

import numpy as np

from stages.bases.backend import load_keras
from stages.data.policy import Resize

CUBIC = -0.5  # as Pillow has it
NONE = 1e-6  # as good as no distance, where one is divided by
# What float32 may miss a tie by, where a pixel is chosen, and where a sum is rounded.
TIE, HALF = 1e-4, 0.5 + 1e-5
# The square of it is in how many steps Pillow holds the shares of pixels. LiteRT may store numbers in float16, which has none so large.
STEPS = 2.0**11
# In the name of the layer that ends it, by which formats are told what not to quantise.
RESIZED = "resized"


class Window(NamedTuple):
    """The part of an axis that is resized, in pixels: where it begins, and how long it is, each (1, 1)."""

    start: Any
    length: Any


def resized(images: Any, size: tuple[int, int], how: Resize, name: str = RESIZED) -> Any:
    """Symbolic images (n, any height, any width, 3) uint8 → (n, height, width, 3) float32, whole numbers from 0 to 255, at ``size``."""
    keras = load_keras()
    ops = keras.ops
    # All images of a batch have one size. Operations know it as that of a tensor alone.
    axes = [
        ops.cast(ops.ones_like(images[:1, :, 0, 0]), "float32"),
        ops.cast(ops.ones_like(images[:1, 0, :, 0]), "float32"),
    ]
    lengths = [ops.sum(each, axis=1, keepdims=True) for each in axes]
    windows = _windows(lengths, size, how)
    rows, columns = (
        _shares(axis, n, count, window, how)
        for axis, n, count, window in zip(axes, lengths, size, windows, strict=True)
    )
    planes = ops.cast(ops.transpose(images, (0, 3, 1, 2)), "float32")
    across = ops.matmul(planes, ops.expand_dims(ops.transpose(columns, (0, 2, 1)), 1))
    if not how.exact:
        across = _as_pillow_rounds(across)
    found = ops.matmul(ops.expand_dims(rows, 1), across)
    found = ops.clip(ops.round(found), 0.0, 255.0) if how.exact else _as_pillow_rounds(found)
    return keras.layers.Permute((2, 3, 1), name=name)(found)


def goes_down(images: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether Pillow 13 resizes the rows of images of a size (height, width) first, and not their columns, as the model does.

    One in six pixels is a step of 1/255 off then, as numbers are rounded in between; both orders in a model would take twice the time.
    The rule agreed with Pillow 13.0 in each of 396 sizes that were drawn at random; https://github.com/python-pillow/Pillow/pull/9549.
    """
    less = [side - to for side, to in zip(images, size, strict=True)]
    return less[0] > max(0, 2 * less[1])


def _as_pillow_rounds(x: Any) -> Any:
    ops = load_keras().ops
    return ops.clip(ops.floor(x + HALF), 0.0, 255.0)


def _windows(lengths: list[Any], size: tuple[int, int], how: Resize) -> list[Window]:
    """The windows of rows and of columns, by the rules of ``stages.data.resizing``."""
    ops = load_keras().ops
    if how.mode == "crop":
        found = []
        for own, other, (a, b) in zip(lengths, lengths[::-1], (size, size[::-1]), strict=True):
            # A quarter of what fractions can differ by, as float32 may fall short of a whole number.
            long = ops.maximum(ops.minimum(own, ops.floor(other * (a / b) + 0.25 / b)), 1.0)
            found.append(Window(ops.floor((own - long) / 2), long))
        return found
    if how.mode != "shortest" and how.crop == 1:
        return [Window(n * 0.0, n) for n in lengths]
    whole: list[Any] = [int(side / how.crop + 1e-6) for side in size]
    if how.mode == "shortest":
        if whole[0] == whole[1]:
            least = ops.minimum(*lengths)
            whole = [ops.floor((whole[0] * n + 0.25) / least) for n in lengths]
        else:
            ratio = ops.maximum(*(side / n for side, n in zip(whole, lengths, strict=True)))
            whole = [ops.round(n * ratio) for n in lengths]
    found = []
    for n, side, count in zip(lengths, whole, size, strict=True):
        begin = ops.round((n * 0.0 + side - count) / 2)
        found.append(Window(begin * n / side, count * n / side))
    return found


def _shares(axis: Any, n: Any, count: int, window: Window, how: Resize) -> Any:
    """The shares (1, count, n) that the n old pixels of an ``axis`` of ones (1, n) have in ``count`` new ones."""
    ops = load_keras().ops
    at = ops.expand_dims(ops.cumsum(axis, axis=1) - 0.5, 1)
    start, length = (ops.expand_dims(each, -1) for each in window)
    step, middles = length / count, (2 * np.arange(count, dtype=np.float32) + 1)[None, :, None]
    # From new pixels to old ones, in old ones. Where a window is of whole pixels, all but the division is of whole numbers, and exact.
    away = ((at - start) * (2 * count) - length * middles) / (2 * count)
    if how.filter == "nearest":
        return _where(ops.logical_and(away - 0.5 <= TIE, away + 0.5 > TIE))
    wide = ops.maximum(step, 1.0) if how.antialias else 1.0
    shares = _kernel(away / wide, how.filter)
    if how.mode == "crop":  # what is cut off has no part in it
        shares = shares * _where(ops.logical_and(at > start, at < start + step * count))
    shares = shares / ops.sum(shares, axis=2, keepdims=True)
    return shares if how.exact else ops.floor(shares * STEPS * STEPS + 0.5) / STEPS / STEPS


def _kernel(d: Any, name: str) -> Any:
    """The kernels of Pillow, of the distance in new pixels, or in old ones where these are larger."""
    ops = load_keras().ops
    a = ops.abs(d)
    if name == "bilinear":
        return ops.relu(1.0 - a)
    if name == "box":
        return _where(ops.logical_and(d > -0.5 + TIE, d <= 0.5 + TIE))
    if name == "hamming":
        return _where(a < 1) * _sinc(a) * (0.54 + 0.46 * ops.cos(math.pi * a))
    if name == "lanczos":
        return _where(a < 3) * _sinc(a) * _sinc(a / 3)
    near = ((CUBIC + 2) * a - (CUBIC + 3)) * a * a + 1
    far = (((a - 5) * a + 8) * a - 4) * CUBIC
    return _where(a < 1) * near + _where(ops.logical_and(a >= 1, a < 2)) * far


def _sinc(a: Any) -> Any:
    ops = load_keras().ops
    at = math.pi * ops.maximum(a, NONE)
    return ops.sin(at) / at


def _where(condition: Any) -> Any:
    return load_keras().ops.cast(condition, "float32")
