"""What heads take that were trained on images."""

from stages.bases.spec import BaseSpec
from stages.heads.images_of import ImagesOf
from stages.heads.tuned_spec import CnnSpec, EndToEndSpec

BASES = {"32x32": BaseSpec.model_validate({"weights": "random", "input_size": 40})}


def scratch(**options: object) -> CnnSpec:
    return CnnSpec.model_validate({"kind": "cnn", "input_size": 32, **options})


def test_images_of_a_size_are_not_those_of_a_base_that_is_called_so() -> None:
    of_a_size, of_a_base = ImagesOf.taken(scratch(), ""), ImagesOf.taken(EndToEndSpec(kind="end_to_end"), "32x32")
    assert [each.spec(BASES).input_size for each in (of_a_size, of_a_base)] == [(32, 32), (40, 40)]


def test_heads_that_take_the_same_images_share_them() -> None:
    assert ImagesOf.taken(scratch(), "") == ImagesOf.taken(scratch(filters=[4]), "")
    assert ImagesOf.taken(scratch(), "") != ImagesOf.taken(scratch(input_size=33), "")
