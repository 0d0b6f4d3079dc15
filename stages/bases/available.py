"""Whether the weights of a base are on this machine, as far as a glance at folders tells; nothing heavy is imported."""

import os
import re
from importlib.util import find_spec
from pathlib import Path

from stages.bases.packaged import PACKAGED
from stages.bases.presets import model_path
from stages.bases.spec import BaseSpec
from stages.bases.weights import Weights

FETCHED = "fetched once"  # of what comes here by itself when it is first used
MISSING = "missing"


def where(spec: BaseSpec, folder: Path) -> str:
    """``here``, with how to have them, or how they come here. ``folder`` keeps fetched weights."""
    if spec.weights == "random":
        return "here (random)"
    if spec.brought:
        named = bool(spec.own_file) or os.path.isabs(spec.weights)  # and not the name of a preset, which is fetched
        path = Path(spec.weights) if named else model_path(spec, folder)
        return "here" if path.exists() else MISSING if named else FETCHED
    found = (
        ["imagenet"] if spec.weights == "imagenet" and (Weights(spec, folder).fetched or _in_keras(spec.name)) else []
    )
    if spec.name in PACKAGED and find_spec(PACKAGED[spec.name].folder):
        found.append("packaged")
    if spec.weights not in ("imagenet", "packaged"):
        return "here" if Path(spec.weights).exists() else MISSING
    return f"here ({', '.join(found)})" if found else FETCHED if spec.weights == "imagenet" else MISSING


def _in_keras(name: str) -> bool:
    """Whether Keras has fetched them before, into its own folder."""
    home = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models"
    # Files are named with and without what separates words: mobilenet_v2_weights_…_no_top.h5, efficientnetv2-b0_notop.h5.
    pattern = re.compile(rf"(weights)?{name.lower()}(?!v\d)\D*.*notop")
    return any(pattern.match(re.sub(r"[^a-z0-9]", "", file.name.lower())) for file in home.glob("*.h5"))
