"""A base that computes what there is: one image without the cost of a batch, and many in few batches."""

from collections.abc import Callable, Collection, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stages.bases.spec import BaseSpec
from stages.predict.pixels import Images

if TYPE_CHECKING:
    from stages.bases.frozen import FrozenBase

# Sizes of the batches for which a function is compiled.
RUNGS = (1, 4, 8, 16, 32)
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
        self._seconds: dict[int, float] = {}

    def needed(self, layers: Collection[str]) -> None:
        """Compute these layers, too, from now on."""
        if not set(layers) <= self._layers.keys():
            self._layers |= dict.fromkeys(layers)
            self._built, self._cold, self._seconds = {}, list(RUNGS), {}

    def warm_up(self) -> bool:
        """Compile the function for the next size that was not called yet; False where there is none."""
        sizes = self._sizes()
        self._cold = [size for size in self._cold if size in sizes]
        if not self._cold:
            return False
        size = self._cold[0]
        for _ in range(2):  # once to compile, once to know what it takes
            self._call(np.zeros((size, *self.spec.input_size, 3), np.uint8), size)
        return True

    def __call__(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[Any]]:
        found, start = [], 0
        for size in parts(len(images), self._costs()):
            found.append(self._call(images[start : start + size], size))
            start += size
        return {layer: np.concatenate([each[layer] for each in found]) for layer in found[0]}

    def _sizes(self) -> list[int]:
        """The sizes of batches that the base takes; none for images as they are, which nothing computes."""
        most = self._of(MOST).batch_size
        return [] if isinstance(self._of(MOST), Images) else sorted({most, *(size for size in RUNGS if size < most)})

    def _costs(self) -> dict[int, float]:
        """What a batch of each size takes: seconds as measured, and before that a guess, by which a batch costs as one image more."""
        known = next(((size, took) for size, took in self._seconds.items()), (0, 1.0))
        unit = known[1] / (known[0] + 1)
        return {size: self._seconds.get(size, (size + 1) * unit) for size in self._sizes()}

    def _call(self, images: NDArray[np.uint8], size: int) -> Mapping[str, NDArray[Any]]:
        largest = self._of(MOST)
        if isinstance(largest, Images):
            return largest(images)
        is_cold = size in self._cold
        self._cold = [each for each in self._cold if each != size]
        start = perf_counter()
        found: Mapping[str, NDArray[Any]]
        if largest.takes_any_batch:
            found = largest(images, padded_to=size)
        else:
            base = largest if size == largest.batch_size else self._of(size)
            found = base(images)
        if not is_cold:  # the first call compiles
            took = perf_counter() - start
            self._seconds[size] = (3 * self._seconds.get(size, took) + took) / 4
        return found

    def _of(self, size: int) -> "FrozenBase | Images":
        if size not in self._built:
            self._built[size] = self._make(list(self._layers), size)
        return self._built[size]


def parts(n: int, costs: Mapping[int, float]) -> list[int]:
    """``n`` images as batches of the sizes that have ``costs``: those that cost least together. The last is padded.

    Without sizes, they are one batch.
    """
    if not costs:
        return [n]
    best: list[tuple[float, list[int]]] = [(0.0, [])]
    for left in range(1, n + 1):
        best.append(
            min(
                (cost + best[max(left - size, 0)][0], [size, *best[max(left - size, 0)][1]])
                for size, cost in costs.items()
            )
        )
    return sorted(best[n][1], reverse=True)
