"""Ensembles: the mean of the probabilities of several heads, each after its temperature.

Nothing is trained but the weights, where they are to be chosen. What the heads say of the images is read from their
``predictions.csv``, so that any kind of head can be in an ensemble. Their files are kept in the ensemble's own folder: it stays whole
when they are trained again or removed.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from cache.errors import HeadError
from cache.files import write_text
from cache.manifest import SPLITS
from stages.heads.calibration import EPSILON, cooled, log_probabilities
from stages.heads.dataset import Dataset
from stages.heads.head import Head, Rows
from stages.heads.metrics import scores
from stages.heads.pooling import pool_layers
from stages.heads.predictions import read_probabilities
from stages.heads.results import HEADS, damaged_files, whole_result
from stages.heads.spec import EnsembleSpec
from stages.heads.task import Spoken
from stages.progress import Progress, counted

# Folds that tell by how much weights that were chosen on validation are too good there.
FOLDS = 5
# The least that four digits show.
LEAST_SHOWN = 1e-4
# What an ensemble keeps of the results of its heads.
TOLD = ("kind", "base", "layers", "base_key", "spec", "seconds", "images_read", "tuned")

# Features (n, …) float32 by base and layer.
ByLayer = Mapping[tuple[str, str], NDArray[np.float32]]


class EnsembleHead(Head):
    """A head that averages others. ``heads_`` tells of each its name (``head``), ``weight``, ``temperature``, ``base`` and ``layers``.

    Where all of them are on one layer of one base, it takes the features of that, as any head does. Otherwise it takes a mapping
    with the features of each of ``inputs_``, (base, layer), in the same order of images.
    """

    spec: EnsembleSpec
    heads_: Sequence[dict[str, Any]] = ()
    _loaded: Sequence[Head] = ()

    @property
    def probabilities_(self) -> str:
        return "mean of heads"

    @property
    def inputs_(self) -> list[tuple[str, str]]:
        """The layers whose features its heads take, each with its base."""
        return list(dict.fromkeys((each["base"], layer) for each in self.heads_ for layer in each["layers"]))

    @property
    def voters(self) -> list[tuple[dict[str, Any], Head]]:
        """Its heads: what is told of each, and the head."""
        return list(zip(self.heads_, self._loaded, strict=True))

    def _fit(self, train: Rows, validation: Rows, progress: Progress, name: str) -> NoReturn:
        raise HeadError(
            "an ensemble is made of heads that are trained already; name them in its table and run `make heads`"
        )

    def predict_proba(self, X: NDArray[np.float32] | ByLayer) -> NDArray[np.float32]:
        return np.exp(self.predict_log_proba(X)).astype(np.float32)

    def predict_log_proba(self, X: NDArray[np.float32] | ByLayer) -> NDArray[np.float64]:
        """As ``Head.predict_log_proba``; raises HeadError for features that are not those of ``inputs_``."""
        inputs = self.inputs_
        if on_images := [each["head"] for each in self.heads_ if not each["layers"]]:
            raise HeadError(
                f"its head {on_images[0]!r} takes images and no features; label image files by `headstart predict`, or export it"
            )
        if not isinstance(X, Mapping):
            if len(inputs) != 1:
                told = ", ".join(f'("{base}", "{layer}")' for base, layer in inputs)
                raise HeadError(f"expected features by base and layer, a mapping with the keys {told}, found one array")
            X = {inputs[0]: X}
        if missing := [each for each in inputs if each not in X]:
            raise HeadError(f"expected the features of {missing[0]}, found those of {', '.join(map(str, X)) or 'none'}")
        of = X
        return self.combined(
            [
                pool_layers([of[each["base"], layer] for layer in each["layers"]], head.spec.pool)
                for each, head in self.voters
            ]
        )

    def combined(self, taken: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        """Log-probabilities (n, classes) from what each of its heads takes: pooled features (n, d), in the order of the heads."""
        logs = [head.predict_log_proba(X) for head, X in zip(self._loaded, taken, strict=True)]
        warm = [np.exp(cooled(each, told["temperature"])) for each, told in zip(logs, self.heads_, strict=True)]
        return log_probabilities(np.tensordot([told["weight"] for told in self.heads_], np.stack(warm), axes=1))

    def save(self, path: Path, feature_shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Write what is told of its heads, whose own files lie in folders beside it."""
        write_text(path, json.dumps({"heads": self.heads_}, indent=1) + "\n")

    @classmethod
    def load(
        cls, path: Path, spec: EnsembleSpec, classes: Sequence[str], load_head: Callable[[Path], Head] | None = None
    ) -> Self:
        """As ``Head.load``; ``load_head`` loads each of its heads from its folder."""
        assert load_head is not None
        head = cls(spec, classes)
        try:
            head.heads_ = json.loads(path.read_text(encoding="utf-8"))["heads"]
            names = [str(told["head"]) for told in head.heads_]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HeadError(
                f"{path}: expected the heads of an ensemble, found a damaged file; delete {path.parent} and run `make heads`"
            ) from error
        head._loaded = [load_head(path.parent / HEADS / name) for name in names]
        return head


def average(spec: EnsembleSpec, folders: Mapping[str, Path], folder: Path, data: Dataset) -> Spoken:
    """An ensemble of the trained heads in ``folders``, by name; their files are taken into its own ``folder``.

    Of a head that was refitted, the one that was trained without the validation images speaks for these, as in its own scores. Raises
    HeadError where a head is damaged, or is of other images.
    """
    start = perf_counter()
    results = {name: whole_result(each) for name, each in folders.items()}
    p = np.stack([_probabilities(folders[name], result, data) for name, result in results.items()])
    head = EnsembleHead(spec, data.classes)
    weights = np.full(len(p), 1 / len(p))
    rows = data.distinct("validation")
    if spec.weights == "validation":
        of_true = p[:, rows, data.y[rows]]
        weights = best_weights(of_true)
        optimism = too_good(of_true, rows if data.groups is None else data.groups[rows])
        head.warnings_ = [chosen_there(len(p), len(rows), optimism)]
    logs = log_probabilities(np.tensordot(weights, p, axes=1))
    head.heads_ = [
        {
            "head": name,
            "weight": float(weight),
            "temperature": result.get("temperature", 1.0),
            **{each: result[each] for each in TOLD if each in result},
        }
        for (name, result), weight in zip(results.items(), weights, strict=True)
    ]
    head.history_ = [{"epoch": 1.0} | _measures(data, logs, "train", "") | _measures(data, logs, "validation", "val_")]
    parameters = [result["parameters"] for result in results.values()]
    head.n_parameters_ = None if None in parameters else sum(parameters)
    head.files_ = _take(folders, results, folder)
    head.told_ = {"heads": head.heads_}
    return Spoken(head, perf_counter() - start, logs)


def best_weights(of_true: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weights (k,), none below 0 and 1 together, of the mean with the lowest log loss; ``of_true`` (k, n) are the probabilities
    that k heads give to the true classes of n images.

    S. Hall and J. Mitchell, "Combining density forecasts", Int. J. Forecasting 23 (2007) 1. The loss is convex, and is minimised by SLSQP.
    """
    from scipy.optimize import minimize

    of_true = np.maximum(of_true, EPSILON)
    k = len(of_true)

    def loss(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        mean = np.maximum(w @ of_true, EPSILON)
        return float(-np.log(mean).mean()), -(of_true / mean).mean(axis=1)

    together = {"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(k)}
    found = minimize(
        loss,
        np.full(k, 1 / k),
        jac=True,
        bounds=[(0, 1)] * k,
        constraints=together,
        method="SLSQP",
        options={"ftol": 1e-10},
    )
    weights = np.clip(found.x, 0, 1)
    weights[weights < 1e-6] = 0
    return np.asarray(weights / weights.sum(), np.float64)


def too_good(of_true: NDArray[np.float64], ids: NDArray[np.int64]) -> float:
    """By how much the log loss of ``best_weights`` is too low on the n images that they were chosen on, by cross-fitting: weights that
    are chosen on four fifths of them, scored on the others. Images with one of ``ids`` (n,) stay together.
    """
    fold = np.unique(ids, return_inverse=True)[1] % FOLDS
    held_out = np.empty(of_true.shape[1])
    for i in range(FOLDS):
        here = fold == i
        held_out[here] = (
            best_weights(of_true[:, ~here]) if (~here).any() else np.full(len(of_true), 1 / len(of_true))
        ) @ of_true[:, here]
    chosen = best_weights(of_true) @ of_true
    return max(0.0, float((np.log(np.maximum(chosen, EPSILON)) - np.log(np.maximum(held_out, EPSILON))).mean()))


def chosen_there(weights: int, images: int, optimism: float) -> str:
    """The warning of so many weights that were chosen on so many validation images."""
    by = f"about {optimism:.4f}" if optimism >= LEAST_SHOWN / 2 else f"less than {LEAST_SHOWN:.4f}"
    where = counted(images, "validation image")
    return f"the {weights} weights were chosen on {where}, so the scores there are too good: the log loss by {by}"


def _probabilities(folder: Path, result: dict[str, Any], data: Dataset) -> NDArray[np.float64]:
    """The probabilities (n, classes) of a head for all rows, as ``predict`` gives them."""
    if damaged := damaged_files(folder, result):
        raise HeadError(f"{folder / damaged[0]}: its digest does not match; delete {folder} and run `make heads`")
    if result["classes"] != list(data.classes):
        raise HeadError(
            f"{folder}: expected a head of {', '.join(data.classes)}, found one of {', '.join(result['classes'])}"
        )
    found = read_probabilities(folder, result["classes"], *SPLITS)
    p = found.p if found.calibrated else np.exp(cooled(log_probabilities(found.before), result.get("temperature", 1.0)))
    place = {sha256: i for i, sha256 in enumerate(found.contents)}
    if lacking := [record.path for record in data.records if record.sha256 not in place]:
        raise HeadError(f"{folder}: expected predictions for {lacking[0]}, found none; run `make heads`")
    return p[[place[record.sha256] for record in data.records]]


def _measures(data: Dataset, logs: NDArray[np.float64], split: str, prefix: str) -> dict[str, float]:
    rows = data.rows(split)
    found = scores(data.y[rows], logs[rows], data.classes)
    return {f"{prefix}loss": found["log_loss"], f"{prefix}accuracy": found["accuracy"]}


def _take(folders: Mapping[str, Path], results: Mapping[str, dict[str, Any]], folder: Path) -> list[str]:
    """Have the files of the heads in the folder of their ensemble, linked where the file system can; their names there."""
    # Its result goes first: while files are replaced, what lies there is no ensemble.
    (folder / "result.json").unlink(missing_ok=True)
    home, taken = folder / HEADS, []
    home.mkdir(parents=True, exist_ok=True)
    for leftover in [path for path in home.iterdir() if path not in [home / name for name in folders]]:
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    for name, source in folders.items():
        files = [*results[name]["files"], "result.json"]
        taken += [f"{HEADS}/{name}/{file}" for file in files]
        if source == home / name:
            continue
        shutil.rmtree(home / name, ignore_errors=True)
        (home / name).mkdir()
        for file in files:
            try:
                os.link(source / file, home / name / file)  # heads replace their files, and never write into them
            except OSError:
                shutil.copy2(source / file, home / name / file)
    return taken
