"""Where a base can be cut: a layer, and the check of those that are asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from cache.errors import BaseError
from stages.fields import did_you_mean

# Names in one line of an error.
MOST_LISTED = 40


@dataclass(frozen=True)
class Layer:
    """A place to cut: its name, its kind, the shape of its output for one image, and the number of its parameters."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int = 0

    def bytes(self) -> int:
        """Bytes for one image as float16, uncompressed."""
        return float16_bytes(self.shape)


def float16_bytes(shape: Sequence[int]) -> int:
    """Bytes of numbers of this shape as float16, uncompressed."""
    return 2 * prod(shape)


def check_layers(there: Sequence[str], wanted: Sequence[str], name: str) -> None:
    """Raise BaseError, with the layers that there are, unless all of ``wanted`` are among them."""
    for layer in wanted:
        if layer not in there:
            listed = ", ".join(there) if len(there) <= MOST_LISTED else f"{len(there)}, see `headstart layers {name}`"
            raise BaseError(
                f"layer {layer!r}: {name} has no such layer{did_you_mean(layer, there) or f'; there are {listed}'}"
            )
