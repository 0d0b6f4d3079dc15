"""What a head says while a part of the image is hidden: M. Zeiler, R. Fergus, "Visualizing and Understanding Convolutional Networks",
ECCV 2014. What is hidden is blurred, as grey would be a thing of its own: R. Fong, A. Vedaldi, "Interpretable Explanations of Black Boxes
by Meaningful Perturbation", ICCV 2017.

It needs nothing of a head but its answers, so any head can be asked, and a map can be checked by it; but the base computes each image
anew for each place.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from stages.explain.evidence import evidence_of
from stages.explain.maps import Size, to_one

# Windows along a side, and the share of it that each hides. They overlap, so that what stands between two of them is hidden by both.
WINDOWS, HIDDEN = 9, 0.25

# Images (n, height, width, 3) uint8 by base, whatever stands for it → log-probabilities (n, classes).
Speak = Callable[[Mapping[Any, NDArray[np.uint8]]], NDArray[np.float64]]


def occluded(images: Mapping[Any, NDArray[np.uint8]], speak: Speak, k: int, size: Size) -> NDArray[np.float32]:
    """The heat map (height, width) of ``size``, from 0 to 1: by how much the evidence for class ``k`` falls where a window hides the image.

    ``images`` (height, width, 3) are the image as each base takes it.
    """
    hidden = {base: _hidden(image) for base, image in images.items()}
    whole = {base: image[None] for base, image in images.items()}
    falls = evidence_of(speak(whole), k) - evidence_of(speak(hidden), k)
    # A window stands for its middle: the first of these lies half a window from the edge, and what is beyond it is as it is there.
    grid = np.pad(falls.reshape(WINDOWS, WINDOWS), 1, mode="edge").clip(0).astype(np.float32)
    step = (1 - HIDDEN) / (WINDOWS - 1)
    first, last = 1.5 - HIDDEN / 2 / step, 1.5 + (1 - HIDDEN / 2) / step
    picture = Image.fromarray(grid).resize((size[1], size[0]), Image.Resampling.BICUBIC, (first, first, last, last))
    return to_one(np.asarray(picture, np.float32).clip(0))


def _hidden(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image (height, width, 3) with a window of it blurred, for each window in the order of reading."""
    height, width = image.shape[:2]
    tall, wide = max(1, round(height * HIDDEN)), max(1, round(width * HIDDEN))
    blurred = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(min(tall, wide) / 2)))
    out = np.repeat(image[None], WINDOWS**2, axis=0)
    for i, each in enumerate(out):
        top, left = (
            round((height - tall) * (i // WINDOWS) / (WINDOWS - 1)),
            round((width - wide) * (i % WINDOWS) / (WINDOWS - 1)),
        )
        each[top : top + tall, left : left + wide] = blurred[top : top + tall, left : left + wide]
    return out


def agreement(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The rank correlation (C. Spearman, Am. J. Psychol. 15 (1904) 72) of two maps (height, width); 0 where one of them is the same
    everywhere.
    """
    ranks = []
    for each in (one, other):
        _, place, count = np.unique(each.ravel().round(4), return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(count) - (count - 1) / 2)[place])
    if any(np.ptp(each) == 0 for each in ranks):
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
