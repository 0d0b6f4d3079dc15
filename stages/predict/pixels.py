"""Images as they are, in the place of a base's features: what heads take that were trained on images."""

import numpy as np
from numpy.typing import NDArray

from stages.bases.spec import BaseSpec
from stages.heads.batches import SCORED

PIXELS = "pixels"


class Images:
    """RGB images (n, height, width, 3) uint8 → themselves, of the input size that ``spec`` says."""

    batch_size = SCORED

    def __init__(self, spec: BaseSpec) -> None:
        self.spec = spec

    def __call__(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
        return {PIXELS: images}
