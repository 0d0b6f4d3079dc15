"""Bases that bring architecture, weights and preprocessing in files: their digest, and what they say of their images.

Both are kept in a record beside the cache, which travels with it, so that heads can be trained where the files are not. Nothing
heavy is imported while the files are as they were.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cache.errors import BaseError
from cache.files import digest_json, digest_text, read_memo, sha256_file, write_sealed
from stages.bases import beside
from stages.bases.pixels import Pixels
from stages.bases.presets import CONFIG, WEIGHTS, model_path, read_config
from stages.bases.spec import BaseSpec


def known(spec: BaseSpec, folder: Path) -> dict[str, Any]:
    """``sha256`` of the model, and the fields of ``[base]`` that it has ``told``; empty for a preset that was not fetched yet.

    ``folder`` keeps the records. Raises BaseError where the files are neither here nor recorded, or are no such model.
    """
    path = model_path(spec, folder)
    record = folder / f"{spec.slug}-file-{digest_text(os.path.relpath(path, folder.parent))[:12]}.json"
    recorded = read_memo(record)
    if not path.exists():
        if recorded or not os.path.isabs(spec.weights):
            return recorded
        what = "an ONNX model" if spec.onnx else "the folder of a KerasHub preset"
        raise BaseError(f"base {spec.name!r}: expected {what} there, found nothing at {path}; mend name")
    root = path.parent if spec.onnx else path
    # Those that it was made of, and those that came since.
    seen = [*(root / name for name in recorded.get("stats", ())), *beside.sources(root)]
    if recorded and _stats(root, seen) == recorded["stats"]:
        return recorded
    files, says = _onnx(path) if spec.onnx else _preset(path)
    stats = _stats(root, [*files, *says["read"]])
    digests = [sha256_file(file) for file in files]
    found = {
        "weights": path.name,
        "stats": stats,
        "sha256": digests[0] if len(digests) == 1 else digest_json(digests),
        "told": says["told"],
    }
    with suppress(OSError):  # a memo: a folder that cannot be written costs time, not correctness
        write_sealed(record, found)
    return found


def completed(spec: BaseSpec, folder: Path) -> BaseSpec:
    """The spec with what the model's own files say, where the configuration says nothing.

    Raises BaseError where neither says how large images are.
    """
    if not (spec.onnx or spec.hub) or not (found := known(spec, folder)):
        return spec
    told = dict(found["told"])
    if (refused := told.pop("refused", None)) and "resize" not in spec.model_fields_set:
        raise BaseError(f"base {spec.name!r}: {refused}; set resize")
    if {"scale", "rescale"} & spec.model_fields_set:
        told.pop("scale", None)
    if "resize" in spec.model_fields_set:
        told.pop("crop", None)
    told = {name: value for name, value in told.items() if name not in spec.model_fields_set}
    if "input_size" not in {*told, *spec.model_fields_set}:
        raise BaseError(f"base {spec.name!r}: expected the size of its images, found none; set input_size")
    if "input_size" in told:
        told["input_size"] = tuple(told["input_size"])
    spec = spec.model_copy(update=told)
    try:
        Pixels.model_validate(spec.model_dump(include=set(Pixels.model_fields)))
    except ValidationError as error:
        raise BaseError(f"base {spec.name!r}, with what its files say: {error.errors()[0]['msg']}") from error
    return spec


def _onnx(path: Path) -> tuple[Sequence[Path], dict[str, Any]]:
    from stages.bases.onnxfile import OnnxModel

    model = OnnxModel(path)
    told = beside.told(path.parent) | ({"input_size": list(model.size)} if all(model.size) else {})
    if model.dtype == "uint8":  # what takes whole numbers prepares them itself
        told = {name: value for name, value in told.items() if name not in ("scale", "mean", "std")}
    return [path, *model.external()], {"told": told, "read": beside.sources(path.parent)}


def _preset(path: Path) -> tuple[Sequence[Path], dict[str, Any]]:
    says = read_config(path)[1]
    # Those of KerasHub, whole or in parts, or those of transformers.
    files = sorted({file for pattern in WEIGHTS for file in path.glob(pattern)})
    if not files:
        raise BaseError(
            f"{path}: expected weights (model.weights.h5, or model.safetensors) in the folder of the preset, found none; save it again"
        )
    return [path / CONFIG, *files], {"told": beside.told(path) | says, "read": beside.sources(path)}


def _stats(root: Path, files: Sequence[Path]) -> dict[str, list[int]]:
    """Size and time of change of each file, by its name relative to ``root``; those that are not there are left out."""
    found = {}
    for file in files:
        with suppress(OSError):
            status = file.stat()
            found[os.path.relpath(file, root)] = [status.st_size, status.st_mtime_ns]
    return found
