"""``[views]``: augmented views of an image, and what chance decides for each.

A view follows from the image's content, the recipe, its seed and the view's number alone, so that any worker, in any order, in any
run, draws the same. Draws are digests, as generators of random numbers differ between libraries and their versions.
"""

import math
from hashlib import sha256
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from stages.fields import Fraction, Seed, Spec

# What stands in the key beside the recipe; changed by hand with anything that changes the pixels of a view.
WARP = "affine-1: drawn by SHA-256, at twice the input size, bilinear, averaged by twos"
RECIPES: dict[str, dict[str, Any]] = {
    # F. Chollet, "Building powerful image classification models using very little data", 2016: what most tutorials do.
    "tutorial": {
        "rotation": 40.0,
        "width_shift": 0.2,
        "height_shift": 0.2,
        "shear": 0.2,
        "zoom": 0.2,
        "horizontal_flip": True,
    },
    "mild": {"rotation": 10.0, "width_shift": 0.05, "height_shift": 0.05, "zoom": 0.1, "horizontal_flip": True},
    # C. Szegedy et al., "Going deeper with convolutions", CVPR 2015, with less of the image lost.
    "crop": {"crop": 0.5, "horizontal_flip": True},
    "flip": {"horizontal_flip": True},
    "none": {},
}
# (a, b, c, d, e, f): the place (x, y) comes from (a·x + b·y + c, d·x + e·y + f).
Affine = tuple[float, float, float, float, float, float]
ASPECT = 4 / 3  # of a crop against the image, at most, and its inverse at least


class Recipe(NamedTuple):
    """Every number of a recipe.

    ``rotation`` and ``shear`` are degrees to either side; ``width_shift`` and ``height_shift`` are fractions of the sides to either
    side; ``zoom`` is the fraction by which each side may be scaled up or down; ``brightness`` that by which pixels may be. ``crop`` is
    the least part of the area that is kept of the image, 1 for all of it. ``fill`` is what is shown beyond the edges.
    """

    rotation: float = 0.0
    width_shift: float = 0.0
    height_shift: float = 0.0
    shear: float = 0.0
    zoom: float = 0.0
    horizontal_flip: bool = False
    vertical_flip: bool = False
    brightness: float = 0.0
    crop: float = 1.0
    fill: str = "nearest"


class ViewsSpec(Spec):
    """``[views]``: the recipe of augmented views by its name, each number of which may be set otherwise; see ``Recipe``."""

    recipe: Literal["tutorial", "mild", "crop", "flip", "none"] = "mild"
    seed: Seed = 0
    rotation: Annotated[float, Field(ge=0, le=180)] | None = None
    width_shift: Fraction | None = None
    height_shift: Fraction | None = None
    shear: Annotated[float, Field(ge=0, le=60)] | None = None
    zoom: Fraction | None = None
    horizontal_flip: bool | None = None
    vertical_flip: bool | None = None
    brightness: Fraction | None = None
    crop: Annotated[float, Field(gt=0, le=1)] | None = None
    fill: Literal["nearest", "reflect", "wrap", "black"] | None = None

    @property
    def whole(self) -> Recipe:
        """The recipe with what is set otherwise."""
        given = self.model_dump(exclude={"recipe", "seed"}, exclude_none=True)
        return Recipe(**{**RECIPES[self.recipe], **given})


class View(NamedTuple):
    """One view of every image: a recipe, its seed, and a number from 1."""

    recipe: Recipe
    seed: int
    number: int

    def identity(self) -> dict[str, Any]:
        """What a base key holds of it: the numbers of the recipe, whatever its name, but for what it does not do."""
        nothing = Recipe()
        recipe = {name: each for name, each in self.recipe._asdict().items() if each != getattr(nothing, name)}
        return {"warp": WARP, "recipe": recipe, "seed": self.seed, "number": self.number}

    def of(self, digest: str) -> "Drawn":
        """What is done to the image with this SHA-256."""
        r = self.recipe

        def chance(name: str) -> float:
            """A number from 0 to below 1. Each parameter has its own, so that a new one leaves the others as they are."""
            drawn = sha256(f"{digest} {self.seed} {self.number} {name}".encode()).digest()
            return int.from_bytes(drawn[:8], "big") / 2**64

        def within(name: str, most: float) -> float:
            return (2 * chance(name) - 1) * most

        area = 1 - chance("crop_area") * (1 - r.crop)
        ratio = ASPECT ** (2 * chance("crop_aspect") - 1) if r.crop < 1 else 1.0
        wide, tall = min(1.0, math.sqrt(area * ratio)), min(1.0, math.sqrt(area / ratio))
        return Drawn(
            math.radians(within("rotation", r.rotation)),
            (within("width_shift", r.width_shift), within("height_shift", r.height_shift)),
            math.radians(within("shear", r.shear)),
            (1 + within("zoom_x", r.zoom), 1 + within("zoom_y", r.zoom)),
            (chance("crop_left") * (1 - wide), chance("crop_top") * (1 - tall), wide, tall),
            r.horizontal_flip and chance("horizontal_flip") < 0.5,
            r.vertical_flip and chance("vertical_flip") < 0.5,
            1 + within("brightness", r.brightness),
        )


class Drawn(NamedTuple):
    """What is done to one image: it is turned by an ``angle`` (radians), shifted (fractions of width and height), sheared (radians) and
    zoomed (factors of width and height), cropped (left, top, width and height, as fractions), flipped, and brightened (a factor).
    """

    angle: float
    shift: tuple[float, float]
    shear: float
    zoom: tuple[float, float]
    crop: tuple[float, float, float, float]
    horizontal_flip: bool
    vertical_flip: bool
    brightness: float

    def affine(self, width: float, height: float) -> Affine:
        """What takes places in the view to places in the image, both of ``width`` × ``height`` pixels, about the middle.

        In the order of ``keras.preprocessing.image.apply_affine_transform``: a view is turned by it, then sheared, then zoomed.
        """
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        lean, upright = math.sin(self.shear), math.cos(self.shear)
        zoom_x, zoom_y = self.zoom
        # (cos −sin; sin cos) · (upright 0; −lean 1) · diag(zoom)
        a, b = (cos * upright + sin * lean) * zoom_x, -sin * zoom_y
        d, e = (sin * upright - cos * lean) * zoom_x, cos * zoom_y
        shift_x, shift_y = self.shift[0] * width, self.shift[1] * height
        # The middle stays, but for the shift, which is turned with the image.
        c = width / 2 + cos * shift_x - sin * shift_y - a * width / 2 - b * height / 2
        f = height / 2 + sin * shift_x + cos * shift_y - d * width / 2 - e * height / 2
        left, top, wide, tall = self.crop
        left, top = left * width, top * height
        return a * wide, b * tall, a * left + b * top + c, d * wide, e * tall, d * left + e * top + f

    @property
    def moves(self) -> bool:
        """Whether pixels come to other places than by a flip."""
        return any(abs(found - same) > 1e-9 for found, same in zip(self.affine(1, 1), (1, 0, 0, 0, 1, 0), strict=True))
