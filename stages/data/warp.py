"""A view of an image in pixels: ``stages.data.views`` says which, Pillow resamples.

The image is decoded at twice the input size, warped there, and averaged by twos: so a view is antialiased, as the image itself is.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stages.data.views import Affine, View

FILLS = {"nearest": "edge", "reflect": "symmetric", "wrap": "wrap", "black": "constant"}


def viewed(
    decoded: Callable[[tuple[int, int]], NDArray[np.uint8]], size: tuple[int, int], view: View, digest: str
) -> NDArray[np.uint8]:
    """The view (height, width, 3) uint8, of ``size`` = (height, width), of the image with this SHA-256, which ``decoded`` gives at
    a size.
    """
    drawn = view.of(digest)
    height, width = size
    if drawn.moves:
        whole = _warped(decoded((2 * height, 2 * width)), drawn.affine(2 * width, 2 * height), view.recipe.fill)
        found = np.asarray(whole.reduce(2))
    else:
        found = decoded(size)
    found = found[:, ::-1] if drawn.horizontal_flip else found
    found = found[::-1] if drawn.vertical_flip else found
    if drawn.brightness != 1:
        found = np.clip(np.rint(found * np.float32(drawn.brightness)), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(found)


def _warped(image: NDArray[np.uint8], affine: Affine, fill: str) -> Image.Image:
    """The image (height, width, 3), each of whose new pixels comes from where ``affine`` says."""
    height, width = image.shape[:2]
    a, b, c, d, e, f = affine
    corners = [(a * x + b * y + c, d * x + e * y + f) for x in (0, width) for y in (0, height)]
    # As much beyond the edges as is shown, and one more, which is interpolated with.
    beyond = []
    for places, side in zip(zip(*corners, strict=True), (width, height), strict=True):
        beyond.append((max(0, math.ceil(-min(places)) + 1), max(0, math.ceil(max(places) - side) + 1)))
    x, y = beyond
    padded = np.pad(image, (y, x, (0, 0)), mode=FILLS[fill])  # type: ignore[call-overload]
    return Image.fromarray(padded).transform(
        (width, height), Image.Transform.AFFINE, (a, b, c + x[0], d, e, f + y[0]), Image.Resampling.BILINEAR
    )
