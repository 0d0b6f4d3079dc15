"""From an image to the numbers that a base takes: the fields of ``[base]`` that say so, where the base itself does not.

A base of ``keras.applications`` brings its own preprocessing. An ONNX model or a KerasHub preset has it in files beside the
weights (``stages.bases.beside``), and whatever is said here goes before both.
"""

from fractions import Fraction as Ratio
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from stages.data.policy import SQUASH, Resize
from stages.fields import Spec


def _factor(value: Any) -> Any:
    """``"1/255"`` as a number."""
    if isinstance(value, str):
        try:
            return float(Ratio(value.replace(" ", "")))
        except (ValueError, ZeroDivisionError):
            raise ValueError(f'expected a number such as 0.5 or "1/255", found {value!r}') from None
    return value


Factor = Annotated[float, BeforeValidator(_factor), Field(gt=0)]


def _three(value: list[float]) -> list[float]:
    if len(value) != 3:
        raise ValueError(f"expected 3 numbers, one for each channel, found {len(value)}")
    return value


Three = Annotated[list[float], AfterValidator(_three)]


class Pixels(Spec):
    """How images are resized, and what becomes of their pixels: ``(order(pixel · scale) - mean) / std``, channel by channel.

    ``mean`` and ``std`` are of the scaled pixels, in the order in which the base takes the channels. ``rescale`` is what Keras calls
    ``scale``. ``crop`` is the fraction of the resized image that is kept, as timm's ``crop_pct``.
    """

    resize: Literal["squash", "shortest", "crop", "stretch"] | None = None
    crop: Annotated[float, Field(gt=0, le=1)] | None = None
    filter: Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"] | None = None
    antialias: bool | None = None
    scale: Factor | None = None
    rescale: Factor | None = None
    mean: Three | None = None
    std: Three | None = None
    order: Literal["rgb", "bgr"] | None = None

    @model_validator(mode="after")
    def _pixels_fit_together(self) -> "Pixels":
        if self.scale is not None and self.rescale is not None:
            raise ValueError("expected scale or rescale, which are the same, found both; keep one of them")
        if self.crop is not None and self.resize in ("crop", "stretch"):
            raise ValueError(
                f'crop: goes with resize = "shortest" or "squash", found {self.resize!r}; leave one of them out'
            )
        if self.antialias is False and self.filter not in (None, "nearest", "bilinear", "bicubic"):
            raise ValueError(
                f'antialias = false goes with filter "nearest", "bilinear" or "bicubic", found {self.filter!r}'
            )
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"std: expected numbers above 0, found {self.std}")
        return self

    @property
    def resizing(self) -> Resize:
        """How images come to the input size."""
        mode = self.resize or ("squash" if self.crop is None else "shortest")
        return SQUASH._replace(
            mode=mode,
            crop=self.crop or 1.0,
            filter=self.filter or SQUASH.filter,
            antialias=SQUASH.antialias if self.antialias is None else self.antialias,
        )

    @property
    def numbers(self) -> dict[str, Any] | None:
        """What becomes of a pixel, as it stands in the base key; None where nothing is told."""
        told = (self.scale, self.rescale, self.mean, self.std, self.order)
        if all(value is None for value in told):
            return None
        return {
            "scale": self.scale or self.rescale or 1.0,
            "mean": self.mean or [0.0, 0.0, 0.0],
            "std": self.std or [1.0, 1.0, 1.0],
            "order": self.order or "rgb",
        }

    def affine(self) -> tuple[list[float], list[float]] | None:
        """What pixels are multiplied by, and what is then added, three each in the order of the base; None where nothing is told."""
        if self.numbers is None:
            return None
        scale, mean, std = (self.numbers[name] for name in ("scale", "mean", "std"))
        return [scale / s for s in std], [-m / s for m, s in zip(mean, std, strict=True)]
