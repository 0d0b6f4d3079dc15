"""Stage two: train a head, score it, and write what it leaves behind."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import HeadError, HeadstartError
from cache.files import atomic_path, seal, sha256_file, write_text
from cache.manifest import SPLITS
from stages.baselines import SklearnHead, classifier
from stages.dataset import Dataset
from stages.heads import DenseHead
from stages.metrics import scores
from stages.progress import SILENT, Progress
from stages.results import MODEL_SUFFIX
from stages.specs import DenseSpec, Pool, SklearnSpec
from stages.together import Fitted, InMemory, Member, train_all

Head = DenseHead | SklearnHead
FILES = ("history.csv", "predictions.csv", *(f"model{suffix}" for suffix in MODEL_SUFFIX.values()))
PREDICTION_COLUMNS = ("path", "split", "true", "predicted", "sha256")


@dataclass(frozen=True)
class HeadTask:
    """One head to train: its name and spec, its key, its base's name, layers and key, and the folder it goes to."""

    name: str
    spec: DenseSpec | SklearnSpec
    key: str
    base: str
    layers: tuple[str, ...]
    base_key: str
    rows_digest: str
    folder: Path


def check_spec(name: str, spec: DenseSpec | SklearnSpec) -> None:
    """Raise HeadError now for what would fail when the head is trained: an unknown estimator or parameter."""
    if isinstance(spec, SklearnSpec):
        try:
            classifier(spec)
        except HeadError as error:
            raise HeadError(f"[heads.{name.split('@')[0]}] {error}") from error


def train_heads(
    tasks: Sequence[HeadTask], data: Dataset, progress: Progress = SILENT
) -> Iterator[tuple[HeadTask, dict[str, Any] | HeadError]]:
    """Train heads on one base; the result of each as soon as its folder is written, or why it could not be trained.

    Heads are trained on train, their epoch is chosen on validation, and every split is scored. Dense heads on the same features
    are trained together.
    """
    together: dict[tuple[Pool, tuple[str, ...]], list[HeadTask]] = {}
    for task in tasks:
        if isinstance(task.spec, DenseSpec):
            together.setdefault((task.spec.pool, task.layers), []).append(task)
    for (pool, layers), group in together.items():
        yield from _train_dense(group, data, pool, layers, progress)
    for task in tasks:
        if isinstance(task.spec, SklearnSpec):
            yield task, _outcome(task, data, partial(_fit_baseline, task, task.spec, data, progress))


def _train_dense(
    tasks: Sequence[HeadTask], data: Dataset, pool: Pool, layers: tuple[str, ...], progress: Progress
) -> Iterator[tuple[HeadTask, dict[str, Any] | HeadError]]:
    X = data.X(pool, layers)
    specs = [task.spec for task in tasks if isinstance(task.spec, DenseSpec)]
    train, validation = data.rows("train"), data.rows("validation")
    members = [Member(spec, train, validation) for spec in specs]
    what = tasks[0].name if len(tasks) == 1 else f"{len(tasks)} heads"
    with progress.task(f"Training {what}", sum(spec.epochs for spec in specs), "epochs") as advance:
        found = train_all(members, InMemory(X, data.y), len(data.classes), advance)
    for task, spec, fitted in zip(tasks, specs, found, strict=True):
        yield task, _outcome(task, data, partial(_taken, spec, fitted, data, X.shape[1]))


def _taken(spec: DenseSpec, fitted: Fitted, data: Dataset, inputs: int) -> tuple[Head, float]:
    return DenseHead(spec, data.classes).take(fitted, inputs), fitted.seconds


def _fit_baseline(task: HeadTask, spec: SklearnSpec, data: Dataset, progress: Progress) -> tuple[Head, float]:
    X = data.X(spec.pool, task.layers)
    train, validation = data.rows("train"), data.rows("validation")
    start = perf_counter()
    head = SklearnHead(spec, data.classes)
    head.fit(X[train], data.y[train], X[validation], data.y[validation], progress, task.name)
    return head, perf_counter() - start


def _outcome(task: HeadTask, data: Dataset, train: Callable[[], tuple[Head, float]]) -> dict[str, Any] | HeadError:
    """Score a head and write its folder; what went wrong, where it cannot be trained.

    ``result.json`` is removed first and written last, so that a folder that has one is whole.
    """
    try:
        head, seconds = train()
    except HeadstartError as error:
        return HeadError(f"head {task.name!r}: {error}")
    probabilities = head.predict_proba(data.X(task.spec.pool, task.layers))
    metrics = {
        split: scores(data.y[rows], probabilities[rows], data.classes)
        for split in SPLITS
        if len(rows := data.rows(split))
    }
    result = _result(task, head, data, metrics, seconds)
    _write_folder(task.folder, head, data, probabilities, result)
    return result


def _result(task: HeadTask, head: Head, data: Dataset, metrics: dict[str, Any], seconds: float) -> dict[str, Any]:
    return {
        "head": task.name,
        "kind": task.spec.kind,
        "key": task.key,
        "base": task.base,
        "layers": list(task.layers),
        "base_key": task.base_key,
        "rows_digest": task.rows_digest,
        "spec": task.spec.parameters(),
        "seed": task.spec.seed,
        "classes": list(data.classes),
        "feature_shapes": {layer: list(shape) for layer, shape in data.feature_shapes(task.layers).items()},
        "seconds": round(seconds, 3),
        "epochs": len(head.history_),
        "best_epoch": head.best_epoch_,
        "parameters": head.n_parameters_,
        "probabilities": head.probabilities_,
        "warnings": head.warnings_,
        "versions": versions(task.spec),
        "metrics": metrics,
    }


def versions(spec: DenseSpec | SklearnSpec) -> dict[str, str]:
    """Versions of what trained the head. A baseline does not load Keras to say Keras's."""
    if isinstance(spec, DenseSpec):
        from stages.backend import versions as keras_versions

        return keras_versions()
    from importlib.metadata import version

    return {name: version(name) for name in ("scikit-learn", "skops", "numpy")}


def _write_folder(
    folder: Path, head: Head, data: Dataset, probabilities: NDArray[np.float32], result: dict[str, Any]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # Its result goes first: a folder without one counts as untrained, whatever else lies there.
    (folder / "result.json").unlink(missing_ok=True)
    for stale in FILES:
        (folder / stale).unlink(missing_ok=True)
    with atomic_path(folder / f"model{MODEL_SUFFIX[head.spec.kind]}") as temporary:
        head.save(temporary, {layer: tuple(shape) for layer, shape in result["feature_shapes"].items()})
    columns = dict.fromkeys(name for row in head.history_ for name in row if name != "epoch")
    rows = [[i, *(row[name] for name in columns)] for i, row in enumerate(head.history_, 1)]
    _write_csv(folder / "history.csv", ["epoch", *columns], rows)
    names = data.classes
    _write_csv(
        folder / "predictions.csv",
        [*PREDICTION_COLUMNS, *(f"p_{name}" for name in names)],
        sorted(
            [
                record.path,
                record.split,
                record.label,
                names[int(p.argmax())],
                record.sha256,
                *(f"{value:.6f}" for value in p),
            ]
            for record, p in zip(data.records, probabilities, strict=True)
        ),
    )
    result["files"] = {name: sha256_file(folder / name) for name in FILES if (folder / name).exists()}
    write_text(folder / "result.json", seal(json.dumps(result, indent=1)) + "\n")


def _write_csv(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def load_head(folder: Path, spec: DenseSpec | SklearnSpec, classes: tuple[str, ...]) -> Head:
    """The trained head of a folder."""
    path = folder / f"model{MODEL_SUFFIX[spec.kind]}"
    return DenseHead.load(path, spec, classes) if isinstance(spec, DenseSpec) else SklearnHead.load(path, spec, classes)
