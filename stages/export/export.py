"""A trained head as a folder that needs no headstart: the model, what is to be known of it, and how it is used."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.errors import HeadError
from cache.files import atomic_folder, remove_temporaries, sha256_file, write_text
from stages.bases.licences import licence_of
from stages.export.card import PHOTOS, card_of, use_of
from stages.export.formats import Sample, check_packages, write_model
from stages.export.model import IMAGES, PROBABILITIES, Built, whole_model
from stages.export.runtimes import loaded
from stages.export.spec import ABOUT, FORMATS, Precision
from stages.heads.results import whole_result
from stages.heads.scored import METRICS
from stages.progress import Progress

USE, CARD = "use.py", "README.md"
ALSO = ("brier", "calibration_error")


@dataclass(frozen=True)
class Wanted:
    """What is to be exported: the trained head in ``head``, its bases by name, into ``folder``; and what is told with it."""

    head: Path
    bases: Mapping[str, Built]
    folder: Path
    to: str
    precision: Precision
    key: str
    model_key: str
    threshold: float | None = None
    min_accuracy: float | None = None
    thresholds: Mapping[str, float] | None = None


class Seen(NamedTuple):
    """An image to compare on: its pixels (height, width, 3) uint8, its class, and the probabilities (classes,) of ``predict``."""

    pixels: NDArray[np.uint8]
    label: int
    probabilities: NDArray[np.float64]


def export_head(wanted: Wanted, seen: Iterator[Seen], count: int, sample: Sample, progress: Progress) -> dict[str, Any]:
    """Write the folder of an export, and compare the model in it with ``predict`` on ``count`` images; gives what ``model.json`` tells.

    The folder is whole or not there. ``sample`` gives images to quantise on. Raises HeadError and BaseError.
    """
    check_packages(wanted.to, wanted.precision)
    result = whole_result(wanted.head)
    model = whole_model(wanted.head, wanted.bases)
    with atomic_folder(wanted.folder) as folder:
        write_model(model, folder, wanted.to, wanted.precision, sample)
        about = _told(wanted, result)
        about["agreement"] = _compared(folder, wanted.to, seen, count, progress)
        _write_scripts(folder, wanted.to)
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        about["files"] = {path.relative_to(folder).as_posix(): sha256_file(path) for path in paths}
        about["bytes"] = {name: (folder / name).stat().st_size for name in about["files"]}
        _write_told(folder, about)
    return about


def tell_thresholds(wanted: Wanted, about: Mapping[str, Any]) -> dict[str, Any]:
    """Tell of the model that lies in the folder, of which ``about`` was told, the thresholds that are wanted; gives what is told then.

    The key is taken away before and set at the end: killed in between, the card and ``model.json`` may tell of different thresholds.
    """
    remove_temporaries(wanted.folder)
    about = {**about, "model_key": wanted.model_key}
    _write_about(wanted.folder, {**about, "key": ""})
    # An earlier version had one script, of which the card says something else.
    scripts = _write_scripts(wanted.folder, wanted.to)
    files = {**about["files"], **{path.name: sha256_file(path) for path in scripts}}
    sizes = {name: (wanted.folder / name).stat().st_size for name in files}
    told = {**about, "key": wanted.key, "files": files, "bytes": sizes, **_thresholds(wanted)}
    _write_told(wanted.folder, told)
    return told


def _write_scripts(folder: Path, to: str) -> list[Path]:
    texts = {USE: use_of(to), PHOTOS.name: PHOTOS.read_text(encoding="utf-8")}
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def _write_told(folder: Path, about: Mapping[str, Any]) -> None:
    """The card first: what ``model.json`` has for a key says that both are there."""
    write_text(folder / CARD, card_of(about))
    _write_about(folder, about)


def _write_about(folder: Path, about: Mapping[str, Any]) -> None:
    write_text(folder / ABOUT, json.dumps(about, indent=1, ensure_ascii=False) + "\n")


def _thresholds(wanted: Wanted) -> dict[str, Any]:
    return {
        "threshold": wanted.threshold,
        "min_accuracy": wanted.min_accuracy,
        "thresholds": dict(wanted.thresholds or {}),
    }


def _told(wanted: Wanted, result: Mapping[str, Any]) -> dict[str, Any]:
    used = dict.fromkeys(told["base"] for told in result.get("heads", [result]) if told["base"] in wanted.bases)
    packages = ("headstart", *("numpy", "keras", "tensorflow"), *FORMATS[wanted.to].readers)
    return {
        "head": result["head"],
        "kind": result["kind"],
        "format": wanted.to,
        "precision": wanted.precision,
        "model": FORMATS[wanted.to].model,
        "key": wanted.key,
        "model_key": wanted.model_key,
        "head_key": result["key"],
        "classes": result["classes"],
        "input": {
            "name": IMAGES,
            "dtype": "uint8",
            "shape": [None, None, None, 3],
            "colours": "RGB",
            "range": [0, 255],
        },
        "output": {"name": PROBABILITIES, "dtype": "float32", "shape": [None, len(result["classes"])]},
        "temperature": result.get("temperature", 1.0),
        **_thresholds(wanted),
        "metrics": {split: _scores(found) for split, found in result["metrics"].items()},
        "bases": [_base(wanted.bases[name]) for name in used],
        "trained_with": result["versions"],
        "versions": _versions(packages),
    }


def _versions(packages: Iterable[str]) -> dict[str, str]:
    """Of those that are installed: TensorFlow reads LiteRT files back where LiteRT itself is missing."""
    found = {}
    for name in packages:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _scores(found: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of a split with their intervals; those that the temperature changes, at that temperature."""
    found = found | found.get("calibrated", {})
    names = [name for name in (*METRICS, *ALSO) if found.get(name) is not None]
    return {
        "n": found["n"],
        "scores": {name: {"value": found[name], "interval": found.get(f"{name}_interval")} for name in names},
    }


def _base(base: Built) -> dict[str, Any]:
    licence = licence_of(base.spec, base.weights.folder)
    return {
        "name": base.spec.name,
        "weights": Path(base.spec.weights).name,
        "weights_sha256": base.weights.digest(),
        "input_size": list(base.spec.input_size),
        "resize": base.spec.resizing.words,
        "licence": licence.terms,
        "source": licence.source,
    }


def _compared(folder: Path, to: str, seen: Iterator[Seen], count: int, progress: Progress) -> dict[str, Any] | None:
    """How the model in a folder differs from ``predict``; None where there are no images to compare on."""
    run, largest, changed, right, before, images = loaded(folder, to), 0.0, 0, 0, 0, 0
    with progress.task("Comparing", count) as advance:
        for pixels, label, expected in seen:
            found = run(pixels[None])[0]
            if not np.isfinite(found).all():
                raise HeadError(
                    f"export to {to}: expected finite probabilities, found others; take another format or precision"
                )
            largest = max(largest, float(np.abs(found - expected).max()))
            changed += int(found.argmax() != expected.argmax())
            right, before = right + int(found.argmax() == label), before + int(expected.argmax() == label)
            images += 1
            advance(1)
    if not images:
        return None
    told = {"images": images, "split": "validation", "largest_difference": largest, "labels_changed": changed}
    return told | {"right": right, "right_before": before}
