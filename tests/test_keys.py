"""Keys hold everything that determines a value, and nothing else.

The digests are pinned: a change of what a key is made of changes them, and then ``SCHEMA``, or for heads ``HEAD_SCHEMA``, must be raised on purpose,
or everybody's cache is extracted again.
"""

from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import ValidationError, create_model

from cache.files import digest_json
from stages.bases.spec import BaseSpec
from stages.heads.spec import EnsembleSpec, KerasSpec, SklearnSpec, head_key
from stages.heads.tuned_spec import CnnSpec, EndToEndSpec, FinetuneSpec
from stages.sweeps.spec import SweepSpec
from stages.training.spec import ONLY_WITH, CommonSpec, DenseSpec

BASE = {"name": "VGG16", "input_size": 150, "weights": "imagenet"}


def base_key(dtype: str = "float16", weights: str = "w", **options: Any) -> str:
    spec = BaseSpec.model_validate(BASE | options)
    return digest_json(spec.identity(weights, dtype, spec.cuts[0]))


def test_base_keys_are_pinned() -> None:
    assert base_key() == "96ab709aa96410ac45a7cfb86a294f46ae58eac7cc2a57aa965c2ed81a2d8217"


def test_packaged_weights_have_a_key_of_their_own_where_their_network_is_not_that_of_keras() -> None:
    mobile = {"name": "MobileNetV2", "input_size": 160}
    packaged = BaseSpec.model_validate(mobile | {"weights": "packaged"}).identity("w", "float16", "out_relu")
    plain = BaseSpec.model_validate(mobile).identity("w", "float16", "out_relu")
    assert packaged == plain | {"preprocess": "torch", "graph": "torchvision"}
    assert digest_json(packaged) == "ef7ce7aa6c5611641435323efb7d35b7e98f341c3a35320d156c09c204b914b9"
    assert base_key(weights="w") == digest_json(
        BaseSpec.model_validate(BASE | {"weights": "packaged"}).identity("w", "float16", "block5_pool")
    )


def test_the_key_of_efficientnet_lite_is_pinned() -> None:
    spec = BaseSpec.model_validate({"name": "EfficientNetLite0", "input_size": 224})
    found = spec.identity("w", "float16", "top_activation")
    assert digest_json(found) == "3941b7d50be75009e3ed9eba432d822325b2e78aff6ebd69fa00e618a732859a"


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


def choices(annotation: Any) -> list[Any]:
    """The words that a field takes."""
    inner = get_args(annotation)
    return list(inner) if get_origin(annotation) is Literal else [word for each in inner for word in choices(each)]


def another(name: str) -> dict[str, Any]:
    """A dense head in which one field has another value than its default, whatever it takes."""
    field = DenseSpec.model_fields[name]
    for value in [True, 1, 0.1, [1], *choices(field.annotation)]:
        try:
            spec = DenseSpec.model_validate(
                {"kind": "dense", name: value, **dict([ONLY_WITH[name]] if name in ONLY_WITH else [])}
            )
        except ValidationError:
            continue
        if getattr(spec, name) != field.default:
            return {name: value}
    raise AssertionError(f"{name}: no value found that it takes")


def test_every_field_of_a_head_is_in_its_key() -> None:
    for name in DenseSpec.model_fields.keys() - {"kind", "base", "layers"}:
        plain = {"kind": "dense", **dict([ONLY_WITH[name]] if name in ONLY_WITH else [])}
        before, after = (DenseSpec.model_validate(plain | more) for more in ({}, another(name)))
        assert head_key(after, "b", "r") != head_key(before, "b", "r") and after.whole() != before.whole(), name
    dense = DenseSpec.model_validate({"kind": "dense"})
    assert len({head_key(dense, "b", "r"), head_key(dense, "other", "r"), head_key(dense, "b", "other")}) == 3


KINDS: list[tuple[type[CommonSpec], dict[str, Any]]] = [
    (DenseSpec, {"kind": "dense"}),
    (KerasSpec, {"kind": "keras", "build": "a.py:b"}),
    (SklearnSpec, {"kind": "sklearn", "estimator": "LinearSVC"}),
    (EnsembleSpec, {"kind": "ensemble", "heads": ["a", "b"]}),
    (FinetuneSpec, {"kind": "finetune", "head": "a"}),
    (EndToEndSpec, {"kind": "end_to_end"}),
    (CnnSpec, {"kind": "cnn"}),
]


@pytest.mark.parametrize(("spec", "table"), KINDS, ids=[table["kind"] for _, table in KINDS])
def test_a_field_that_a_later_version_adds_leaves_heads_and_sweeps_as_they_are(
    spec: type[CommonSpec], table: dict[str, Any]
) -> None:
    """Whatever its name: other kinds may have had the field from the beginning."""
    added = next(name for name in ("warmup", "scale") if name not in spec.model_fields)
    later = create_model("Later", __base__=spec, **{added: (float, 0.0)})  # type: ignore[call-overload]
    before, after, used = (
        spec.model_validate(table),
        later.model_validate(table),
        later.model_validate(table | {added: 1.0}),
    )
    assert (after.whole(), after.slice()) == (before.whole(), before.slice())
    assert (used.whole(), used.slice()) == (before.whole() | {added: 1.0}, before.slice() | {added: 1.0})


def test_a_field_that_a_later_version_adds_to_a_sweep_leaves_sweeps_as_they_are() -> None:
    table = {"head": "a", "refit": True}
    later = create_model("Later", __base__=SweepSpec, added=(float, 0.0))
    before = SweepSpec.model_validate(table).whole()
    assert later.model_validate(table).whole() == before and "refit" not in before
    assert later.model_validate(table | {"added": 1.0}).whole() == before | {"added": 1.0}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "f80767efa085b28d"),
        ({"grid": {"units": [[], [8]]}, "cv": 3, "repeats": 2, "seed": 1}, "eddf0fde834aebf4"),
        ({"strategy": "random", "grid": {"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}}, "trials": 4}, "093fbf8b01c1efdf"),
        ({"strategy": "halving", "grid": {"dropout": [0.1]}, "factor": 2, "min_epochs": 4}, "170683df610b82ef"),
    ],
    ids=str,
)  # fmt: skip
def test_sweeps_are_pinned(options: dict[str, Any], expected: str) -> None:
    assert digest_json(SweepSpec.model_validate({"head": "a"} | options).whole())[:16] == expected


TRAINED = {
    "views": True,
    "mixup": 0.2,
    "monitor": "accuracy",
    "optimizer": "adamw",
    "patience": 3,
    "class_weight": "balanced",
}
# What earlier versions wrote into the keys of sweeps.
SWEPT: list[tuple[dict[str, Any], str]] = [
    ({"kind": "dense"}, "822f638c3889e90a"),
    ({"kind": "dense", "units": [], "pool": "avg"}, "6ee59218dd9d6aea"),
    ({"kind": "dense", "loss": "focal"}, "d7f52384ef549479"),
    ({"kind": "dense", "loss": "focal", "focal_gamma": 1.0, "l2": 0.1, "max_norm": 3.0}, "dfc8a5eeead2595f"),
    ({"kind": "dense", "optimizer": "sgd", "momentum": 0.5, "base": ["a", "b"], "layers": ["c"]}, "f3d168f13768f2b6"),
    ({"kind": "dense", **TRAINED}, "20f19eb9688cd11a"),
    ({"kind": "keras"}, "057da699fad39c6d"),
    ({"kind": "keras", **TRAINED}, "33112a159e82982a"),
    ({"kind": "sklearn"}, "28e0f6b362f0fe75"),
    ({"kind": "sklearn", "views": True, "params": {"C": 2.0}, "scale": False, "seed": 3}, "4091c3e15a40df0b"),
    ({"kind": "ensemble"}, "90f88ae00e921b3d"),
    ({"kind": "ensemble", "heads": None, "sweep": "s", "best": 3, "weights": "validation"}, "3adc9d85b36b4bf2"),
    ({"kind": "finetune"}, "c55d198f398a859f"),
    ({"kind": "finetune", "from": "block5_conv1", "warmup": 1.0, "cosine": True}, "fd9f369fef0d5d46"),
    ({"kind": "finetune", **TRAINED}, "311f92ef250332fc"),
    ({"kind": "end_to_end"}, "3cafb3aa309400a8"),
    ({"kind": "end_to_end", "from": 2, "units": [8], "batch_norm": True}, "f2c24284de8c978a"),
    ({"kind": "end_to_end", **TRAINED}, "34c1b11ad3147c1a"),
    ({"kind": "cnn"}, "81b52e3c5cd0d640"),
    ({"kind": "cnn", "input_size": [64, 96], "filters": [8], "units": [], "dropout": 0.2}, "59edef6305db0814"),
    ({"kind": "cnn", **TRAINED}, "1ad35fbaa0360c6b"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "expected"), SWEPT, ids=str)
def test_heads_in_the_keys_of_sweeps_are_pinned(options: dict[str, Any], expected: str) -> None:
    spec, table = next(each for each in KINDS if each[1]["kind"] == options["kind"])
    assert digest_json(spec.model_validate(table | options).whole())[:16] == expected


def test_momentum_is_in_the_key_where_the_optimizer_takes_it_and_gamma_where_the_loss_does() -> None:
    def key(**options: Any) -> str:
        return head_key(DenseSpec.model_validate({"kind": "dense", **options}), "b", "r")

    assert key(optimizer="sgd", momentum=0.5) != key(optimizer="sgd")
    assert key(optimizer="adam", momentum=0.5) == key(optimizer="adam")
    assert key(loss="focal", focal_gamma=1.0) != key(loss="focal") == key(loss="focal", focal_gamma=2.0)
    assert key(focal_gamma=1.0) == key()
    assert key(loss="cross_entropy", mixup=0.0, l2=0.0, max_norm=0.0, monitor="loss") == key()


def test_every_field_of_an_ensemble_is_in_its_key() -> None:
    def key(**options: Any) -> str:
        return head_key(EnsembleSpec.model_validate({"kind": "ensemble", **options}), "", "r", ["k", "l"])

    assert len({key(heads=["a", "b"]), key(heads=["a", "c"]), key(heads=["a", "b"], weights="validation")}) == 3
    assert len({key(sweep="s"), key(sweep="t"), key(sweep="s", best=2), key(heads=["a", "b"])}) == 4


def test_the_keys_of_the_heads_that_a_head_needs_are_in_its_key_in_their_order() -> None:
    dense = DenseSpec.model_validate({"kind": "dense"})
    found = {head_key(dense, "b", "r", needs) for needs in ([], ["k"], ["l"], ["k", "l"], ["l", "k"])}
    assert len(found) == 5 and head_key(dense, "b", "r", ()) == head_key(dense, "b", "r")
    assert head_key(dense, "b", "r", ["k"]) == "1c3d6e73c17521a9640c09f53e6a25d9f3d0b50684d053d6fec7ae8d7444a7c9"


SHA = "0" * 64
# What versions before these fields were written hashed, byte for byte, and what this one first did.
ALL_KINDS: list[tuple[dict[str, Any], str]] = [
    ({"name": "VGG16"}, "f0a03854ec86e380"),
    ({"name": "VGG16", "layer": "fc2", "include_top": True, "input_size": 224}, "9d144e8a9bab1334"),
    ({"name": "VGG16", "rescale": "1/255"}, "526a10545dada79a"),
    ({"name": "file:x.keras", "preprocess": "tf"}, "c8c1def508b3b364"),
    ({"name": "file:x.onnx"}, "f0d76ee9758e53eb"),
    ({"name": "file:x.onnx", "engine": "openvino", "scale": "1/255", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}, "7fde0b7f8c897bd8"),
    ({"name": "hub:x", "output": "cls+mean", "prefix_tokens": 5, "resize": "crop", "antialias": False}, "f6a81bbbd300512a"),
    ({"name": "hub:x", "layers": ["a", "b"], "final_norm": True, "resize": "shortest", "crop": 0.875, "filter": "bicubic"}, "0d811143aa6b16f7"),
]  # fmt: skip


def key_of(options: dict[str, Any]) -> str:
    spec = BaseSpec.model_validate(options)
    return digest_json(spec.identity(SHA, "float16", spec.cuts[0]))


@pytest.mark.parametrize(("options", "expected"), ALL_KINDS)
def test_keys_of_all_kinds_of_bases_are_pinned(options: dict[str, Any], expected: str) -> None:
    assert key_of(options)[:16] == expected


HUB: dict[str, Any] = {"name": "hub:x", "output": "mean"}


@pytest.mark.parametrize(
    "added",
    [
        {"output": "patches"}, {"prefix_tokens": 1}, {"prefix_tokens": 0}, {"final_norm": True}, {"resize": "shortest"}, {"resize": "crop"},
        {"crop": 0.9}, {"resize": "squash", "crop": 0.9}, {"filter": "bicubic"}, {"antialias": False}, {"scale": 2.0}, {"mean": [1.0, 0.0, 0.0]}, {"std": [2.0, 1.0, 1.0]},
        {"order": "bgr"}, {"engine": "openvino"},
    ],
    ids=str,
)  # fmt: skip
def test_each_new_field_is_in_the_key(added: dict[str, Any]) -> None:
    assert key_of(HUB | added) != key_of(HUB)


@pytest.mark.parametrize(
    ("options", "added"),
    [
        (HUB, {"final_norm": False}), (HUB, {"resize": "squash"}), (HUB, {"filter": "bilinear"}), (HUB, {"antialias": True}),
        (HUB, {"crop": 1.0, "resize": "squash"}), (HUB | {"output": "cls"}, {"prefix_tokens": 5}), (HUB, {"engine": "keras"}),
        ({"name": "file:x.onnx"}, {"engine": "onnxruntime"}), ({"name": "VGG16"}, {"include_top": False}),
        ({"name": "VGG16", "scale": 1 / 255}, {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0], "order": "rgb"}),
    ],
    ids=str,
)  # fmt: skip
def test_a_field_at_its_default_is_not(options: dict[str, Any], added: dict[str, Any]) -> None:
    assert key_of(options | added) == key_of(options)


def test_a_ratio_under_either_name_is_one_key() -> None:
    assert key_of({"name": "VGG16", "rescale": "1/255"}) == key_of({"name": "VGG16", "scale": 1 / 255})


def test_what_a_model_is_called_is_not_in_its_key() -> None:
    assert key_of({"name": "file:x.onnx"}) == key_of({"name": "file:other/y.onnx"})
    assert key_of({"name": "hub:x"}) == key_of({"name": "hub:folder/y"})
