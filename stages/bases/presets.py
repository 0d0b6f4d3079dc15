"""Presets of KerasHub as files: the folder, what its configuration says, and the check that it names no code from elsewhere.

Nothing heavy is imported here. ``stages.bases.hub`` builds the model.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

from cache.errors import BaseError
from cache.files import digest_text
from stages.bases.spec import BaseSpec

CONFIG = "config.json"  # what makes a folder a preset of KerasHub
WEIGHTS = ("model*.weights.h5", "model.weights.json", "model*.safetensors", "model.safetensors.index.json")
PACKAGES = ("keras", "keras_hub")
# Parts of Keras of which models are made. Others fetch files, save them, or run what they are given.
TRUSTED = re.compile(
    r"keras(\.src)?(\.(layers|activations|initializers|regularizers|constraints|dtype_policies|models|quantizers)(\.\w+)*)?"
    r"|keras_hub(\.src)?\.(models|layers)(\.\w+)*"
)
# Layers that run what their configuration holds, or a file that it names.
OF_CODE = re.compile("lambda|TorchModuleWrapper|TFSMLayer|JaxLayer|FlaxLayer", re.IGNORECASE)


def is_preset_folder(path: str, root: Path) -> bool:
    """Whether ``hub:`` is followed by a folder, relative to ``root``, and not by a name: by what it looks like, or what is there."""
    return "://" not in path and (path.startswith((".", "~")) or os.sep in path or (root / path).is_dir())


def fetched_preset(spec: BaseSpec, folder: Path) -> Path:
    """Where a preset that was fetched by its name is kept."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", spec.weights)[-60:]
    return folder / f"hub-{name}-{digest_text(spec.weights)[:8]}"


def model_path(spec: BaseSpec, folder: Path) -> Path:
    """The ONNX file, or the folder of the preset."""
    return Path(spec.weights) if spec.onnx or os.path.isabs(spec.weights) else fetched_preset(spec, folder)


def read_config(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration of a preset, and what it says of its input, as fields of ``[base]``; nothing is imported or built.

    Raises BaseError for what is no preset, or names code from elsewhere than Keras and KerasHub.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        check_trusted(config, path)
        inner = config.get("config", config)  # transformers writes the parameters at the top
        tower = inner.get("vision_encoder", {}).get("config") or inner.get("vision_config") or inner
        size = tower.get("image_shape") or tower.get("image_size")
        sizes = list(size[:2]) if isinstance(size, list) else [size, size]
        told: dict[str, Any] = {"input_size": sizes} if all(isinstance(n, int) for n in sizes) else {}
        if (prefix := _prefix(config.get("class_name") or config.get("model_type") or "", inner)) is not None:
            told["prefix_tokens"] = prefix
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise BaseError(
            f"{path}: expected the configuration of a KerasHub preset, found none ({error}); mend name"
        ) from error
    return config, told


def check_trusted(value: Any, path: Path | str) -> None:
    """Raise BaseError for a configuration with code from elsewhere: Keras imports the modules that it names."""
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        check_trusted(each, path)
    if not isinstance(value, dict):
        return
    module = value.get("module")
    package, known, _ = str(value.get("registered_name") or "").partition(">")
    function = module == "builtins" and value.get("class_name") == "function"  # an activation by its name
    strange = bool(known) and package not in PACKAGES
    if (
        strange
        or (module is not None and not function and not TRUSTED.fullmatch(str(module)))
        or OF_CODE.search(str(value.get("class_name")))
    ):
        raise BaseError(
            f"{path}: expected classes of keras and keras_hub alone, found {value.get('class_name')!r} "
            f"of {package if strange else module!r}; "
            "headstart runs no code from a preset"
        )


def _prefix(kind: str, config: dict[str, Any]) -> int | None:
    """How many tokens stand before the patches: the class token, and registers; None where the kind does not say."""
    kind = kind.lower()
    if kind.startswith("dino"):
        return 1 + int(config.get("num_register_tokens") or 0)
    known = {"vit": int(config.get("use_class_token", True)), "deit": 2, "clip": 1, "metaclip": 1, "siglip": 0}
    return next((known[name] for name in known if kind.startswith(name)), None)
