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
            fields = read(json.loads(path.read_text(encoding="utf-8")))
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
    fields: dict[str, Any] = {"order": "rgb"}
    if said.get("do_rescale", True):
        fields["scale"] = float(said.get("rescale_factor", 1 / 255))
    if said.get("do_normalize", True):
        fields |= {"mean": _three(said["image_mean"]), "std": _three(said["image_std"])}
    if said.get("do_pad"):
        raise ValueError("do_pad, which is not there; use another way to resize")
    if said.get("do_resize", True) and "resample" in said:
        fields["filter"] = FILTERS[said["resample"]]
    size, crop = _side(said.get("size")), _side(said.get("crop_size"))
    cropped = crop if said.get("do_center_crop", bool(crop)) else None
    fraction = said.get("crop_pct")
    # A number alone is the shorter side where something is cut off, and else both sides.
    shortest = "shortest_edge" in said["size"] if isinstance(said.get("size"), dict) else bool(cropped or fraction)
    if size and shortest and not (cropped or fraction):
        raise ValueError(
            f"a size of {said['size']} without a crop, so that images have any shape; say input_size and resize"
        )
    if size:
        fields["resize"] = "shortest" if shortest else "squash"
        fields["input_size"] = cropped or size
        if fraction and not cropped:  # ConvNeXt says the size after its crop, and crops no large images
            fields |= {"crop": float(fraction)} if size[0] < 384 else {"resize": "squash"}
        elif cropped and cropped != size:
            fields["crop"] = cropped[0] / size[0]
    return fields


def _of_timm(said: Mapping[str, Any]) -> dict[str, Any]:
    said = said.get("pretrained_cfg", said)
    if "mean" not in said or "std" not in said or "input_size" not in said:
        return {}  # a config.json of something else
    modes = {"center": "shortest", "squash": "squash"}
    fields = {
        "scale": 1 / 255,
        "mean": _three(said["mean"]),
        "std": _three(said["std"]),
        "order": "rgb",
        "filter": said.get("interpolation", "bicubic"),
        "resize": modes[said.get("crop_mode", "center")],
        "input_size": list(said["input_size"][1:]),
    }
    return fields | ({"crop": float(said.get("crop_pct", 0.875))} if fields["resize"] == "shortest" else {})


def _of_keras_hub(said: Mapping[str, Any]) -> dict[str, Any]:
    config = said.get("config", {})
    config = (config.get("image_converter") or {}).get("config", config)
    if "scale" not in config or "image_size" not in config:
        return {}
    fields: dict[str, Any] = {"order": "rgb"}
    if config["scale"] is not None or config["offset"] is not None:
        # Pixels times scale plus offset, as the fields say it: (pixel - mean) / std.
        scale = [float(each) for each in _three(1.0 if config["scale"] is None else config["scale"])]
        offset = [float(each) for each in _three(config["offset"] or 0.0)]
        fields |= {"mean": [-b / a for a, b in zip(scale, offset, strict=True)], "std": [1 / a for a in scale]}
    if config.get("pad_to_aspect_ratio"):
        raise ValueError("pad_to_aspect_ratio, which is not there; say resize")
    fields |= {
        "resize": "crop" if config.get("crop_to_aspect_ratio", True) else "squash",
        "filter": {"lanczos3": "lanczos"}.get(name := config.get("interpolation", "bilinear"), name),
        "antialias": bool(config.get("antialias", False)),
    }
    return fields | ({"input_size": list(config["image_size"])} if config["image_size"] else {})


def _three(value: Any) -> list[float]:
    return [float(value)] * 3 if isinstance(value, int | float) else [float(each) for each in value]


def _side(size: Any) -> list[int] | None:
    """A size as transformers writes it: a number, an edge, or height and width."""
    if isinstance(size, Mapping):
        edge = size.get("shortest_edge")
        return [int(size.get("height", edge)), int(size.get("width", edge))]
    return [int(size), int(size)] if size else None


_READERS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "preprocessor_config.json": _of_transformers,
    "image_converter.json": _of_keras_hub,
    "preprocessor.json": _of_keras_hub,
    "config.json": _of_timm,
}
