"""Augmented views: what chance decides for each image, and the pixels that come of it."""

import io
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from scipy.ndimage import affine_transform

from cache.files import digest_json
from stages.bases.spec import BaseSpec
from stages.data.images import decode
from stages.data.views import RECIPES, Recipe, View, ViewsSpec
from stages.data.warp import viewed

SIZE = (40, 50)
DIGESTS = [f"{i:064x}" for i in range(40)]


def smooth(size: tuple[int, int] = (90, 120)) -> bytes:
    """A picture without sharp edges, as a PNG file."""
    grid = np.random.default_rng(3).integers(30, 226, (5, 6, 3)).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(grid).resize((size[1], size[0]), Image.Resampling.BICUBIC).save(out, "PNG")
    return out.getvalue()


def view_of(recipe: Recipe, digest: str = DIGESTS[0], number: int = 1, data: bytes = b"") -> NDArray[np.uint8]:
    return viewed(partial(decode, data or smooth()), SIZE, View(recipe, 0, number), digest)


recipes = st.builds(
    Recipe,
    rotation=st.floats(0, 180),
    width_shift=st.floats(0, 0.9),
    height_shift=st.floats(0, 0.9),
    shear=st.floats(0, 60),
    zoom=st.floats(0, 0.9),
    horizontal_flip=st.booleans(),
    vertical_flip=st.booleans(),
    brightness=st.floats(0, 0.9),
    crop=st.floats(0.01, 1),
    fill=st.sampled_from(["nearest", "reflect", "wrap", "black"]),
)


@settings(max_examples=60, deadline=None)
@given(recipes, st.sampled_from(DIGESTS), st.integers(1, 5))
def test_any_recipe_gives_an_image_and_the_same_one_each_time(recipe: Recipe, digest: str, number: int) -> None:
    found = view_of(recipe, digest, number)
    assert found.shape == (*SIZE, 3) and found.dtype == np.uint8
    np.testing.assert_array_equal(found, view_of(recipe, digest, number))


def test_draws_are_pinned_as_keys_are() -> None:
    drawn = View(Recipe(**RECIPES["tutorial"]), 0, 1).of("ab" * 32)
    assert drawn.angle == pytest.approx(-0.5975423959597956) and drawn.shear == pytest.approx(0.001710634136853287)
    assert drawn.shift == pytest.approx((-0.024120608341486174, -0.10230912507760388))
    assert drawn.zoom == pytest.approx((1.1849933692110985, 1.0200745928480008))
    assert drawn.crop == (0, 0, 1, 1) and not drawn.horizontal_flip


def test_images_views_seeds_and_recipes_differ() -> None:
    tutorial = RECIPES["tutorial"]
    plain = View(Recipe(**tutorial), 0, 1)
    others = [plain._replace(number=2), plain._replace(seed=1)]
    assert (
        len({view.of(DIGESTS[0]).affine(1, 1) for view in (plain, *others)} | {plain.of(DIGESTS[1]).affine(1, 1)}) == 4
    )
    # A recipe with one more parameter leaves what the others draw as it is.
    with_flip = View(Recipe(**tutorial | {"vertical_flip": True, "brightness": 0.3}), 0, 1)
    assert with_flip.of(DIGESTS[0]).affine(1, 1) == plain.of(DIGESTS[0]).affine(1, 1)


def test_draws_fill_their_ranges_evenly() -> None:
    recipe = Recipe(rotation=40, width_shift=0.2, zoom=0.2, horizontal_flip=True, crop=0.5)
    drawn = [View(recipe, 0, number).of(digest) for number in range(1, 26) for digest in DIGESTS]
    angles = np.degrees([each.angle for each in drawn])
    assert -40 <= angles.min() < -38 and 38 < angles.max() <= 40 and abs(angles.mean()) < 2.5
    shifts = np.array([each.shift[0] for each in drawn])
    assert abs(shifts.std() - 0.4 / np.sqrt(12)) < 0.01 and all(each.shift[1] == 0 for each in drawn)
    assert 0.45 < np.mean([each.horizontal_flip for each in drawn]) < 0.55
    areas = np.array([each.crop[2] * each.crop[3] for each in drawn])
    assert areas.min() > 0.4 and areas.max() <= 1.0
    assert all(each.crop[0] + each.crop[2] <= 1 and each.crop[1] + each.crop[3] <= 1 for each in drawn)


def test_no_recipe_is_the_image_and_a_flip_is_its_mirror() -> None:
    plain = decode(smooth(), SIZE)
    np.testing.assert_array_equal(view_of(Recipe()), plain)
    flipped = [view_of(Recipe(horizontal_flip=True), digest) for digest in DIGESTS]
    mirrored = [not np.array_equal(each, plain) for each in flipped]
    assert 8 < sum(mirrored) < 32
    np.testing.assert_array_equal(flipped[mirrored.index(True)], plain[:, ::-1])
    upside_down = [view_of(Recipe(vertical_flip=True), digest) for digest in DIGESTS]
    assert any(np.array_equal(each, plain[::-1]) for each in upside_down)


@pytest.mark.parametrize(
    "fill, mode", [("nearest", "nearest"), ("reflect", "reflect"), ("wrap", "grid-wrap"), ("black", "constant")]
)
def test_pixels_are_where_scipy_puts_them(fill: str, mode: str) -> None:
    """By the matrix alone, without twice the size and the average."""
    recipe = Recipe(**RECIPES["tutorial"])._replace(fill=fill, shear=20.0, horizontal_flip=False)
    plain = decode(smooth(), SIZE).astype(np.float64)
    for digest in DIGESTS[:6]:
        a, b, c, d, e, f = View(recipe, 0, 1).of(digest).affine(SIZE[1], SIZE[0])
        # scipy counts rows first, and from the middle of a pixel.
        matrix, offset = [[e, d], [b, a]], [f + (d + e) / 2 - 0.5, c + (a + b) / 2 - 0.5]
        expected = np.stack(
            [affine_transform(plain[..., i], matrix, offset, order=1, mode=mode) for i in range(3)], axis=-1
        )
        difference = np.abs(view_of(recipe, digest) - expected)
        assert np.median(difference) < 3, digest
        assert np.quantile(difference, 0.9) < 12, digest  # edges of what is filled in are softer


def test_the_matrix_is_that_of_keras() -> None:
    """As ``keras.preprocessing.image.random_affine``'s, from the same angle, shift, shear and zoom, in rows and columns."""
    drawn = View(Recipe(rotation=40, width_shift=0.2, height_shift=0.2, shear=30, zoom=0.2), 0, 1).of(DIGESTS[2])
    height, width = 40.0, 50.0
    turn, lean = -drawn.angle, drawn.shear
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    shift = np.array([[1, 0, drawn.shift[1] * height], [0, 1, drawn.shift[0] * width], [0, 0, 1]])
    shear = np.array([[1, -np.sin(lean), 0], [0, np.cos(lean), 0], [0, 0, 1]])
    zoom = np.diag([drawn.zoom[1], drawn.zoom[0], 1])
    middle, back = (np.array([[1, 0, s * height / 2], [0, 1, s * width / 2], [0, 0, 1]]) for s in (1, -1))
    of_rows = middle @ rotation @ shift @ shear @ zoom @ back
    a, b, c, d, e, f = drawn.affine(width, height)
    np.testing.assert_allclose(of_rows[:2], [[e, d, f], [b, a, c]], atol=1e-9)


def test_a_view_is_antialiased() -> None:
    """Stripes finer than a pixel come out grey, whatever the angle."""
    stripes = np.zeros((640, 800, 3), np.uint8)
    stripes[:, ::2] = 255
    out = io.BytesIO()
    Image.fromarray(stripes).save(out, "PNG")
    for digest in DIGESTS[:5]:
        found = view_of(Recipe(rotation=40, zoom=0.2), digest, data=out.getvalue())
        assert found.std() < 8 and abs(found.mean() - 127.5) < 8


def test_brightness_keeps_within_bounds() -> None:
    found = [view_of(Recipe(brightness=0.9), digest) for digest in DIGESTS]
    means = [float(each.mean()) for each in found]
    assert min(means) < 60 and max(means) > 200


@pytest.mark.parametrize(
    "table, words",
    [
        ({"rotation": -1.0}, "greater than or equal to 0"),
        ({"crop": 0.0}, "greater than 0"),
        ({"recipe": "strong"}, "'tutorial'"),
        ({"fill": "white"}, "'nearest'"),
        ({"zoom": 1.0}, "less than 1"),
        ({"spin": 1.0}, "not permitted"),
    ],
)
def test_what_cannot_be_is_refused(table: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ViewsSpec.model_validate(table)


def test_keys_of_views_are_pinned_and_hold_the_numbers_not_their_name() -> None:
    spec = BaseSpec.model_validate({"name": "VGG16", "weights": "imagenet", "views": 4})

    def key(table: dict[str, Any], number: int = 1) -> str:
        views = ViewsSpec.model_validate(table)
        return digest_json(spec.identity("w", "float16", "block5_pool", View(views.whole, views.seed, number)))

    tutorial = {"recipe": "tutorial"}
    assert key(tutorial) == "8e346dc904a58cc1dde67def1037d77818017b361dfe3e7b1ad02d2f4a8223ae"
    assert key(tutorial) == key({"recipe": "none", **RECIPES["tutorial"]})
    others = [{"seed": 1}, {"recipe": "mild"}, {"rotation": 30.0}, {"fill": "reflect"}, {"crop": 0.9}]
    assert len({key(tutorial | each) for each in others} | {key(tutorial), key(tutorial, 2)}) == 7
    # The image itself keeps its key, whatever views there are.
    plain = BaseSpec.model_validate({"name": "VGG16", "weights": "imagenet"})
    assert spec.identity("w", "float16", "block5_pool") == plain.identity("w", "float16", "block5_pool")
