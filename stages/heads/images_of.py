"""Which images a head takes that was trained on images, in the place of the name of a base."""

from collections.abc import Mapping
from typing import NamedTuple

from stages.bases.spec import BaseSpec
from stages.heads.tuned_spec import CnnSpec, EndToEndSpec


class ImagesOf(NamedTuple):
    """Images as they come to a ``base``, or where there is none, images of a ``size`` (height, width)."""

    base: str | None
    size: tuple[int, int] | None = None

    @classmethod
    def taken(cls, spec: EndToEndSpec | CnnSpec, base: str) -> "ImagesOf":
        """Those that a head takes; heads that take the same share them."""
        return cls(None, spec.input_size) if isinstance(spec, CnnSpec) else cls(base)

    def spec(self, bases: Mapping[str, BaseSpec]) -> BaseSpec:
        """How they are decoded and resized."""
        if self.base is not None:
            return bases[self.base]
        return BaseSpec.model_validate({"weights": "random", "input_size": list(self.size or ())})


# What a head takes features of: a base by its name, or images, which are their own.
BaseOrImages = str | ImagesOf
