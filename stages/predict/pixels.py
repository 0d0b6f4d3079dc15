"""Images as they are, in the place of a base's features: what heads take that were trained on images."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from stages.bases.spec import BaseSpec
from stages.heads.batches import SCORED
from stages.heads.tuned_spec import CnnSpec, EndToEndSpec

PIXELS = "pixels"
OF = "images for "


class Images:
    """RGB images (n, height, width, 3) uint8 → themselves, of the input size that ``spec`` says."""

    batch_size = SCORED

    def __init__(self, spec: BaseSpec) -> None:
        self.spec = spec

    def __call__(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
        return {PIXELS: images}


def images_for(spec: EndToEndSpec | CnnSpec, base: str) -> str:
    """What images are called that a head takes: those of one size and of one preparation by one name."""
    return f"{OF}{'x'.join(map(str, spec.input_size))}" if isinstance(spec, CnnSpec) else f"{OF}{base}"


def images_named(name: str, bases: Mapping[str, BaseSpec]) -> Images | None:
    """The images of this name; None for a name that is of none."""
    if not name.startswith(OF):
        return None
    of = name.removeprefix(OF)
    if of in bases:
        return Images(bases[of])
    return Images(BaseSpec.model_validate({"weights": "random", "input_size": list(map(int, of.split("x")))}))
