"""Keys hold everything that determines a value, and nothing else.

The digests are pinned: a change of what a key is made of changes them, and then ``SCHEMA``, or for heads ``HEAD_SCHEMA``, must be raised on purpose,
or everybody's cache is extracted again.
"""

from typing import Any

import pytest

from cache.files import digest_json
from stages.bases.spec import BaseSpec
from stages.heads.spec import SklearnSpec, head_key
from stages.training.spec import DenseSpec

BASE = {"name": "VGG16", "input_size": 150, "weights": "imagenet"}


def base_key(dtype: str = "float16", weights: str = "w", **options: Any) -> str:
    spec = BaseSpec.model_validate(BASE | options)
    return digest_json(spec.identity(weights, dtype, spec.cuts[0]))


def test_base_keys_are_pinned() -> None:
    assert base_key() == "96ab709aa96410ac45a7cfb86a294f46ae58eac7cc2a57aa965c2ed81a2d8217"


def test_head_keys_are_pinned() -> None:
    dense = DenseSpec.model_validate({"kind": "dense"})
    baseline = SklearnSpec.model_validate({"kind": "sklearn", "estimator": "LinearSVC"})
    assert head_key(dense, "b", "r") == "cce240ff9733cb5342be0babab6ccf6bfe63f2e35f1b3da88dd6168852a54fd1"
    assert head_key(baseline, "b", "r") == "8ce4ca7d1d0c0d6e21a0a34098532786fd5172ed0e727b04226fe97b8f7b1a17"


@pytest.mark.parametrize(
    "options",
    [
        {"name": "VGG19"},
        {"input_size": 160},
        {"input_size": [150, 160]},
        {"layer": "block4_pool"},
        {"precision": "float32"},
        {"dtype": "float32"},
        {"weights": "other"},
    ],
)
def test_what_determines_the_features_is_in_the_key(options: dict[str, Any]) -> None:
    assert base_key(**options) != base_key()


@pytest.mark.parametrize("options", [{"batch_size": 7}, {"layer": "block5_pool"}, {"input_size": [150, 150]}])
def test_what_does_not_determine_them_is_not(options: dict[str, Any]) -> None:
    assert base_key(**options) == base_key()


def test_every_field_of_a_head_is_in_its_key() -> None:
    before = head_key(DenseSpec.model_validate({"kind": "dense"}), "b", "r")
    other = {
        "pool": "avg", "seed": 1, "units": [1], "activation": "tanh", "dropout": 0.1, "batch_norm": True,
        "optimizer": "adam", "learning_rate": 1.0, "momentum": 0.5, "weight_decay": 0.1, "epochs": 1,
        "batch_size": 1, "patience": 1, "class_weight": "balanced", "label_smoothing": 0.1, "refit": True,
    }  # fmt: skip
    assert other.keys() == DenseSpec.model_fields.keys() - {"kind", "base", "layers"}
    del other["momentum"]  # in the key of sgd alone
    for name, value in other.items():
        assert head_key(DenseSpec.model_validate({"kind": "dense", name: value}), "b", "r") != before, name
    assert head_key(DenseSpec.model_validate({"kind": "dense"}), "other", "r") != before
    assert head_key(DenseSpec.model_validate({"kind": "dense"}), "b", "other") != before


def test_momentum_is_in_the_key_where_the_optimizer_takes_it() -> None:
    def key(**options: Any) -> str:
        return head_key(DenseSpec.model_validate({"kind": "dense", **options}), "b", "r")

    assert key(optimizer="sgd", momentum=0.5) != key(optimizer="sgd")
    assert key(optimizer="adam", momentum=0.5) == key(optimizer="adam")
