"""What lies beside a model and says how images become its input: files of transformers, timm and KerasHub, as fields of ``[base]``.

- ``preprocessor_config.json``: https://huggingface.co/docs/transformers/main_classes/image_processor
- ``config.json`` of timm (``pretrained_cfg``): https://huggingface.co/docs/timm/reference/data
- ``image_converter.json``, or ``preprocessor.json``, of KerasHub: https://keras.io/keras_hub/api/preprocessing_layers/image_converter/

Read as plain JSON: nothing heavy is imported, and nothing is run.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cache.errors import BaseError
from stages.bases.pixels import Pixels

# Pillow's numbers for its filters, which transformers writes.
FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


def told(folder: Path) -> dict[str, Any]:
    """The fields of ``[base]`` that files in the folder of a model say; those left out are as headstart's own.

    Raises BaseError for a file that cannot be read, or asks for what cannot be had.
    """
    for name, read in _READERS.items():
        path = folder / name
        if not path.is_file():
            continue
        try:
            if not isinstance(said := json.loads(path.read_text(encoding="utf-8")), dict):
                raise ValueError("no object")
            fields = read(said)
            if fields:
                Pixels.model_validate({name: value for name, value in fields.items() if name in Pixels.model_fields})
                return fields
        except ValidationError as error:
            raise BaseError(f"{path}: {error.errors()[0]['msg']}; say it in [base], or remove the file") from error
        except (ValueError, TypeError, AttributeError, KeyError, OSError) as error:
            raise BaseError(
                f"{path}: expected how images are prepared, found what cannot be read ({error}); mend it, or remove it and say it in [base]"
            ) from error
    return {}


def sources(folder: Path) -> list[Path]:
    """The files that ``told`` may read."""
    return [folder / name for name in _READERS if (folder / name).is_file()]


def _of_transformers(said: Mapping[str, Any]) -> dict[str, Any]:
    if "image_processor" in said:  # a processor of images and texts
        said = said["image_processor"]
    if not any(name in said for name in ("image_mean", "size", "do_resize", "do_normalize", "crop_size")):
        return {}
    fields: dict[str, Any] = {"order": "bgr" if said.get("do_flip_channel_order") else "rgb"}
    if said.get("do_rescale", True):
        fields["scale"] = float(said.get("rescale_factor", 1 / 255))
    if said.get("do_normalize", "image_mean" in said):
        fields |= {"mean": _three(said["image_mean"]), "std": _three(said["image_std"])}
        if said.get("include_top"):  # EfficientNet divides by the deviation twice
            fields["std"] = [each**2 for each in fields["std"]]
    if said.get("rescale_offset"):  # to numbers from -1 to 1, before any mean
        fields["mean"] = [each + 1 for each in fields.get("mean", [0.0] * 3)]
    if said.get("do_resize", True) and said.get("resample") is not None:
        fields["filter"] = FILTERS[said["resample"]]
    if said.get("do_pad"):
        return fields | {"refused": f"{_TRANSFORMERS} pads images, which headstart does not"}
    return fields | _sizes(said)


def _sizes(said: Mapping[str, Any]) -> dict[str, Any]:
    size, crop = _side(said.get("size")), _side(said.get("crop_size"))
    cropped = crop if said.get("do_center_crop", bool(crop)) else None
    fraction = said.get("crop_pct")
    if not said.get("do_resize", True) or not said.get("size"):
        return {"input_size": cropped} if cropped else {}
    # A number alone is the shorter side where something is cut off, and else both sides; for these processors always both.
    kind = str(said.get("image_processor_type") or said.get("feature_extractor_type"))
    square = kind.startswith(("DeiT", "Beit", "Data2Vec"))
    told = said["size"]
    shortest = "shortest_edge" in told if isinstance(told, dict) else bool(cropped or fraction) and not square
    if size is None or (shortest and not (cropped or fraction)):
        why = f"{_TRANSFORMERS} has a size of {told} without a crop, so that images come in many shapes"
        return {"refused": why} | ({"input_size": cropped} if cropped else {})
    fields: dict[str, Any] = {"resize": "shortest" if shortest else "squash", "input_size": cropped or size}
    if fraction and cropped in (None, size):  # of ConvNeXt and PoolFormer: the size is that after the crop
        whole = cropped is None and size[0] >= 384  # ConvNeXt crops no large images
        fields |= {"resize": "squash"} if whole else {"crop": float(fraction)}
    elif cropped and cropped != size:
        fields["crop"] = cropped[0] / size[0]
    return fields


def _of_timm(said: Mapping[str, Any]) -> dict[str, Any]:
    said = said.get("pretrained_cfg", said)
    if "mean" not in said or "std" not in said or "input_size" not in said:
        return {}  # a config.json of something else
    fields = {
        "scale": 1 / 255,
        "mean": _three(said["mean"]),
        "std": _three(said["std"]),
        "order": "rgb",
        "filter": said.get("interpolation") or "bicubic",
        "input_size": list(said["input_size"][1:]),
    }
    mode = said.get("crop_mode") or "center"
    if mode not in ("center", "squash"):
        return fields | {"refused": f"config.json has crop_mode {mode!r}, which headstart does not have"}
    return fields | {
        "resize": "shortest" if mode == "center" else "squash",
        "crop": float(said.get("crop_pct") or 0.875),
    }


def _of_keras_hub(said: Mapping[str, Any]) -> dict[str, Any]:
    config = said.get("config", {})
    config = (config.get("image_converter") or {}).get("config", config)
    if "scale" not in config or "image_size" not in config:
        return {}
    fields: dict[str, Any] = {"order": "rgb"}
    if config["scale"] is not None or config.get("offset") is not None:
        # Pixels times scale plus offset, as the fields say it: (pixel - mean) / std.
        scale = [float(each) for each in _three(1.0 if config["scale"] is None else config["scale"])]
        offset = [float(each) for each in _three(config.get("offset") or 0.0)]
        fields |= {"mean": [-b / a for a, b in zip(scale, offset, strict=True)], "std": [1 / a for a in scale]}
    if config.get("pad_to_aspect_ratio"):
        fields["refused"] = "its image converter pads images, which headstart does not"
    fields |= {
        "resize": "crop" if config.get("crop_to_aspect_ratio", True) else "stretch",
        "filter": {"lanczos3": "lanczos"}.get(name := config.get("interpolation", "bilinear"), name),
        "antialias": bool(config.get("antialias", False)),
    }
    return fields | ({"input_size": list(config["image_size"])} if config["image_size"] else {})


def _three(value: Any) -> list[float]:
    return [float(value)] * 3 if isinstance(value, int | float) else [float(each) for each in value]


def _side(size: Any) -> list[int] | None:
    """A size as transformers writes it: a number, an edge, or height and width; None for another."""
    if isinstance(size, Mapping):
        sides = [int(size.get(name) or size.get("shortest_edge") or 0) for name in ("height", "width")]
        return sides if all(sides) else None
    return [int(size), int(size)] if size else None


_TRANSFORMERS = "preprocessor_config.json"
_READERS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    _TRANSFORMERS: _of_transformers,
    "image_converter.json": _of_keras_hub,
    "preprocessor.json": _of_keras_hub,
    "config.json": _of_timm,
}
