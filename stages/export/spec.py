"""Into which formats a head can be exported, in which precisions, and how an export is read back. Nothing heavy is imported."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cache.errors import HeadError
from cache.files import digest_json
from stages.heads.results import as_trained

Precision = Literal["float32", "float16", "int8"]
# Raised by hand when exports are made otherwise. 2: pixels are rounded as Pillow does, and photos are decoded as in training.
EXPORT_SCHEMA = 2
ABOUT = "model.json"
EXPORTS = "export"  # the folder of all of them
# What is read of model.json, and its types; `bytes` is not in that of an earlier version.
TOLD: dict[str, Any] = {
    "head": str, "key": str, "format": str, "precision": str, "min_accuracy": float | None, "files": dict, "bytes": dict | None,
}  # fmt: skip


class Format(NamedTuple):
    """A format: the file or folder of its model, the precisions it has, and what writes it beside TensorFlow, by extra."""

    model: str
    precisions: tuple[Precision, ...] = ("float32",)
    writers: tuple[tuple[str, str], ...] = ()
    readers: tuple[str, ...] = ()


FORMATS = {
    "keras": Format("model.keras", readers=("keras", "tensorflow")),
    "saved_model": Format("saved_model", readers=("tensorflow",)),
    "litert": Format("model.tflite", ("float32", "float16", "int8"), readers=("ai-edge-litert",)),
    "onnx": Format(
        "model.onnx",
        ("float32", "float16", "int8"),
        (("tf2onnx", "export"), ("onnx", "export"), ("onnxruntime", "export")),
        ("onnxruntime",),
    ),
    "openvino": Format("model.xml", ("float32", "float16", "int8"), (("openvino", "openvino"),), ("openvino",)),
}

QUANTISED_ON_IMAGES = ("onnx", "openvino")


def check_format(name: str, precision: str) -> Precision:
    """The precision. Raises HeadError for a format that there is not, or one without this precision."""
    if name not in FORMATS:
        raise HeadError(f"--to: expected one of {', '.join(FORMATS)}, found {name!r}")
    allowed = FORMATS[name].precisions
    if precision not in allowed:
        others = [each for each, found in FORMATS.items() if precision in found.precisions]
        more = f"; {', '.join(others)} have it" if others else ""
        raise HeadError(f"--precision: {name} is written in {' or '.join(allowed)}, found {precision!r}{more}")
    return allowed[allowed.index(precision)]


def folder_name(head: str, to: str, precision: str) -> str:
    """``dense256-onnx``, ``dense256-onnx-int8``."""
    return f"{head}-{to}" + ("" if precision == "float32" else f"-{precision}")


def folder_names(head: str) -> set[str]:
    """All folders that exports of a head may have."""
    return {folder_name(head, to, precision) for to, each in FORMATS.items() for precision in each.precisions}


def export_key(result: Mapping[str, Any], to: str, precision: str, min_accuracy: float | None, among: int = 1) -> str:
    """SHA-256 of what an export is made of: the head as it was trained, and how it is written. Its threshold depends on ``among`` how
    many heads it was chosen; without a ``min_accuracy``, it is the key of the model alone.
    """
    parts = {"schema": EXPORT_SCHEMA, "head": as_trained(dict(result)), "to": to, "precision": precision}
    if precision == "int8" and to in QUANTISED_ON_IMAGES:
        # 2: convolutions of each channel by itself stay in float32. MobileNetV2 lost a fifth of its accuracy otherwise.
        parts["quantised"] = 2
    if precision == "int8" and any(head["kind"] == "sklearn" for head in result.get("heads", [result])):
        # 2: the scaling of a baseline is a layer by itself. Within the weights, it left nothing of most of them.
        parts["baselines"] = 2
    if min_accuracy is not None:
        parts |= {"min_accuracy": min_accuracy} | ({"among": among} if among > 1 else {})
    return digest_json(parts)


def model_key_of(about: Mapping[str, Any]) -> str | None:
    """The key of the model of an export, whatever its threshold; None where an earlier version, which did not note it, set one."""
    noted: str | None = about.get("model_key") or (None if about["min_accuracy"] is not None else about["key"])
    return noted


def read_export(folder: Path) -> dict[str, Any] | None:
    """What is told of an export that is whole, as far as the sizes of its files tell; None where there is none."""
    about = read_about(folder)
    if about and all(_has_size(folder / name, (about.get("bytes") or {}).get(name)) for name in about["files"]):
        return about
    return None


def _has_size(path: Path, size: int | None) -> bool:
    """Whether a file is there, and is so many bytes long; exports of an earlier version do not tell how many."""
    with suppress(OSError):
        return path.stat().st_size == size or size is None
    return False


def read_about(folder: Path) -> dict[str, Any] | None:
    """What ``model.json`` tells; None where it is absent or damaged."""
    with suppress(OSError, ValueError):
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if isinstance(about, dict) and all(isinstance(about.get(name), kind) for name, kind in TOLD.items()):
            return about
    return None
