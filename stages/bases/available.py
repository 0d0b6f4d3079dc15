"""Whether the weights of a base are on this machine, as far as a glance at folders tells; nothing heavy is imported."""

import os
import re
from importlib.util import find_spec
from pathlib import Path

from stages.bases.packaged import PACKAGED
from stages.bases.presets import model_path
from stages.bases.spec import BaseSpec
from stages.bases.weights import Weights


def where(spec: BaseSpec, folder: Path) -> str:
    """``here``, with how to have them, or how they come here. ``folder`` keeps fetched weights."""
    if spec.weights == "random":
        return "here (random)"
    if spec.brought:
        return "here" if model_path(spec, folder).exists() else "fetched once"
    found = (
        ["imagenet"] if spec.weights == "imagenet" and (Weights(spec, folder).fetched or _in_keras(spec.name)) else []
    )
    if spec.name in PACKAGED and find_spec(PACKAGED[spec.name].folder):
        found.append("packaged")
    if spec.weights not in ("imagenet", "packaged"):
        return "here" if Path(spec.weights).exists() else "missing"
    return f"here ({', '.join(found)})" if found else "fetched once"


def _in_keras(name: str) -> bool:
    """Whether Keras has fetched them before, into its own folder."""
    home = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models"
    # Files are named with and without what separates words: mobilenet_v2_weights_…_no_top.h5, efficientnetv2-b0_notop.h5.
    pattern = re.compile(rf"(weights)?{name.lower()}(?!v\d)\D*.*notop")
    return any(pattern.match(re.sub(r"[^a-z0-9]", "", file.name.lower())) for file in home.glob("*.h5"))
