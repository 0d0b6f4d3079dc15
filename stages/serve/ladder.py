"""A base that computes what there is: one image without the cost of a batch, and many in few batches."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stages.bases.spec import BaseSpec
from stages.predict.pixels import Images

if TYPE_CHECKING:
    from stages.bases.frozen import FrozenBase

# Sizes of the batches for which a function is compiled.
RUNGS = (1, 8, 32)
MOST = RUNGS[-1]


class Ladder:
    """Images (n, height, width, 3) uint8, as ``spec`` says how they come, → the features (n, …) of its layers.

    ``make`` builds the base for some layers and for batches of a size. That is done when it is needed first, and again when
    ``needed`` names a layer that it does not have.
    """

    def __init__(self, spec: BaseSpec, make: "Callable[[Collection[str], int], FrozenBase | Images]") -> None:
        self.spec = spec
        self._make = make
        self._layers: dict[str, None] = {}
        self._built: dict[int, FrozenBase | Images] = {}
        self._cold: list[int] = list(RUNGS)

    def needed(self, layers: Collection[str]) -> None:
        """Compute these layers, too, from now on."""
        if not set(layers) <= self._layers.keys():
            self._layers |= dict.fromkeys(layers)
            self._built, self._cold = {}, list(RUNGS)

    def warm_up(self) -> bool:
        """Compile the function for the next size that was not called yet; False where there is none."""
        sizes = self._sizes()
        self._cold = [size for size in self._cold if size in sizes]
        if not self._cold:
            return False
        self._call(np.zeros((self._cold[0], *self.spec.input_size, 3), np.uint8), self._cold[0])
        return True

    def __call__(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[Any]]:
        found, start = [], 0
        for size in parts(len(images), self._sizes()):
            found.append(self._call(images[start : start + size], size))
            start += size
        return {layer: np.concatenate([each[layer] for each in found]) for layer in found[0]}

    def _sizes(self) -> list[int]:
        """The sizes of batches that the base takes; none for images as they are, which nothing computes."""
        most = self._of(MOST).batch_size
        return [] if isinstance(self._of(MOST), Images) else sorted({most, *(size for size in RUNGS if size < most)})

    def _call(self, images: NDArray[np.uint8], size: int) -> Mapping[str, NDArray[Any]]:
        largest = self._of(MOST)
        self._cold = [each for each in self._cold if each != size]
        if isinstance(largest, Images):
            return largest(images)
        if largest.takes_any_batch:
            return largest(images, padded_to=size)
        base = largest if size == largest.batch_size else self._of(size)
        return base(images)

    def _of(self, size: int) -> "FrozenBase | Images":
        if size not in self._built:
            self._built[size] = self._make(list(self._layers), size)
        return self._built[size]


def parts(n: int, sizes: Sequence[int]) -> list[int]:
    """``n`` images as batches of ``sizes``, in ascending order: one is padded where more than half of it is full, or none is smaller.

    Without sizes, they are one batch.
    """
    out = [] if sizes else [n]
    left = n if sizes else 0
    while left:
        above = next((size for size in sizes if size >= left), None)
        below = [size for size in sizes if size <= left]
        if above and (left > above / 2 or not below):
            out.append(above)
            break
        out.append(below[-1])
        left -= below[-1]
    return out
