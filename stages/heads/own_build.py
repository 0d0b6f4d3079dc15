"""A Keras model from a function of the user's own, refused before training where it could not be used or read back."""

import re
import runpy
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import HeadError
from stages.bases.backend import load_keras
from stages.heads.spec import KerasSpec

# What TensorFlow colours its messages with.
ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
REASON = 300  # characters
SHOWN = 4  # probabilities


def in_one_line(error: BaseException) -> str:
    """The error's type and message, for a line in a terminal."""
    return f"{type(error).__name__}: {' '.join(ESCAPES.sub('', str(error)).split())[:REASON]}"


def build_model(spec: KerasSpec, home: Path, shape: tuple[int, ...], n_classes: int) -> Any:
    """The untrained model for features (n, *shape). Raises HeadError where the function cannot be run, or gives no head."""
    keras = load_keras()
    name, _, function = spec.build.rpartition(":")
    path = home / name
    # As Python does for a script: what lies beside the file can be imported.
    sys.path.insert(0, str(path.absolute().parent))
    try:
        # The file is the user's own, named in the configuration that they run.
        there = runpy.run_path(str(path))
        if function not in there:
            raise HeadError(f"{spec.build}: expected a function {function!r} in {name}, found none")
        made = there[function](shape, n_classes)
        if isinstance(made, list | tuple):
            outputs, activation = (1, "sigmoid") if n_classes == 2 else (n_classes, "softmax")
            last = keras.layers.Dense(outputs, activation=activation, name="probabilities")
            made = keras.Sequential([keras.layers.Input(shape), *made, last])
        if not isinstance(made, keras.Model):
            raise HeadError(f"{spec.build}: expected a Keras model or a list of layers, found {type(made).__name__}")
        found = keras.ops.convert_to_numpy(made(np.zeros((1, *shape), np.float32), training=False))
    except (HeadError, KeyboardInterrupt):
        raise
    except BaseException as error:  # whatever the user's code raises, SystemExit too
        raise HeadError(f"{spec.build}: cannot be built for features {shape} ({in_one_line(error)})") from error
    finally:
        sys.path.remove(str(path.absolute().parent))
    _check_probabilities(spec, found, n_classes)
    _check_that_it_can_be_loaded(spec, made)
    return made


def _check_probabilities(spec: KerasSpec, found: np.ndarray, n_classes: int) -> None:
    if found.shape != (1, n_classes) and (n_classes != 2 or found.shape != (1, 1)):
        raise HeadError(f"{spec.build}: expected {n_classes} probabilities for an image, found {found.shape[1:]}")
    total, several = float(found.sum()), found.shape[1] > 1
    if not (found.min() >= 0 and found.max() <= 1) or (several and abs(total - 1) > 1e-3):
        ends = "softmax, or in one sigmoid" if n_classes == 2 else "softmax"
        values = ", ".join(f"{value:.3g}" for value in found[0, :SHOWN])
        values += ", …" if found.shape[1] > SHOWN else ""
        sums = f" that sum to 1, found {values}, which sum to {total:.3g}" if several else f", found {values}"
        raise HeadError(f"{spec.build}: expected probabilities{sums}; end in {ends}")


def _check_that_it_can_be_loaded(spec: KerasSpec, model: Any) -> None:
    """Save and load, as one who predicts will: without running the user's code."""
    keras = load_keras()
    # Nor does that process know what the user's file registers with Keras.
    registered = keras.saving.get_custom_objects()
    kept = dict(registered)
    registered.clear()
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
            model.save(Path(folder) / "model.keras")
            keras.saving.load_model(Path(folder) / "model.keras", compile=False, safe_mode=True)
    except OSError:
        raise
    except Exception as error:
        layers = [layer for layer in model._flatten_layers() if layer is not model and not _can_be_loaded(layer)]
        found = ", ".join(f"{layer.name} ({type(layer).__name__})" for layer in layers) or in_one_line(error)
        raise HeadError(
            f"{spec.build}: expected layers and functions of Keras's own, found {found}, which could not be read "
            "back without running code from the saved file"
        ) from error
    finally:
        registered.update(kept)


def _can_be_loaded(layer: Any) -> bool:
    saving = load_keras().saving
    try:
        with warnings.catch_warnings(action="ignore"):
            saving.deserialize_keras_object(saving.serialize_keras_object(layer), safe_mode=True)
    except Exception:
        return False
    return True
