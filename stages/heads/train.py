"""Stage two: train a head, score it, and write what it leaves behind."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import DataError, HeadError, HeadstartError
from cache.files import atomic_path, seal, sha256_file, write_csv, write_text
from cache.manifest import SPLITS
from stages.heads.baselines import SklearnHead
from stages.heads.dataset import Dataset, in_words
from stages.heads.dense import DenseHead
from stages.heads.estimators import classifier
from stages.heads.fitting import fit_all
from stages.heads.metrics import cooled, scores, temperature
from stages.heads.own import KerasHead
from stages.heads.results import MODEL_SUFFIX
from stages.heads.spec import AnyHead, KerasSpec, SklearnSpec
from stages.heads.strengths import Shared
from stages.progress import SILENT, Progress
from stages.training.spec import DenseSpec, Pool
from stages.training.together import Fitted, Member, train_all

Head = DenseHead | KerasHead | SklearnHead
FILES = ("history.csv", "predictions.csv", *dict.fromkeys(f"model{suffix}" for suffix in MODEL_SUFFIX.values()))
PREDICTION_COLUMNS = ("path", "split", "true", "predicted", "sha256")


@dataclass(frozen=True)
class HeadTask:
    """One head to train: its name and spec, its key, its base's name, layers and key, and the folder it goes to.

    ``home`` is where the configuration lies, to which a user's own code is relative.
    """

    name: str
    spec: AnyHead
    key: str
    base: str
    layers: tuple[str, ...]
    base_key: str
    rows_digest: str
    folder: Path
    home: Path = Path()


def check_spec(name: str, spec: AnyHead, section: str = "heads") -> None:
    """Raise HeadError now for what would fail when the head is trained: an unknown estimator or parameter."""
    if isinstance(spec, SklearnSpec):
        try:
            classifier(spec)
        except HeadError as error:
            raise HeadError(f"[{section}.{name.split('@')[0]}] {error}") from error


Outcomes = Iterator[tuple[HeadTask, dict[str, Any] | HeadError]]
Trainer = Callable[[Sequence[HeadTask], Dataset, Progress], Outcomes]


def train_heads(tasks: Sequence[HeadTask], data: Dataset, progress: Progress = SILENT) -> Outcomes:
    """Train heads on one base; the result of each as soon as its folder is written, or why it could not be trained.

    Heads are trained on train, their epoch is chosen on validation, and every split is scored. Dense heads on the same features
    are trained together, and baselines share what they have in common.
    """
    groups: dict[tuple[str, Pool, tuple[str, ...]], list[HeadTask]] = {}
    for task in tasks:
        groups.setdefault((task.spec.kind, task.spec.pool, task.layers), []).append(task)
    for (kind, _, _), group in groups.items():
        train: Trainer = {"dense": _train_dense, "keras": _train_own, "sklearn": _fit_baselines}[kind]
        try:
            yield from train(group, data, progress)
        except DataError as error:
            yield from ((task, HeadError(f"head {task.name!r}: {error}")) for task in group)


@dataclass(frozen=True)
class Trained:
    """A head and the seconds it took. Where it was refitted on validation too, ``selected`` is the one that was not."""

    head: Head
    seconds: float
    selected: Head | None = None

    def log_probabilities(self, data: Dataset, layers: Sequence[str]) -> NDArray[np.float64]:
        """For all rows (n, classes); a head that has seen the validation rows does not speak for them."""
        out = np.empty((len(data.records), len(data.classes)))
        held = np.zeros(len(data.records), bool)
        held[data.rows("validation")] = True
        for positions, X in data.parts(self.head.spec.pool, layers):
            out[positions] = self.head.predict_log_proba(X)
            if self.selected is not None and held[positions].any():
                out[positions[held[positions]]] = self.selected.predict_log_proba(X[held[positions]])
        return out


def _train_dense(tasks: Sequence[HeadTask], data: Dataset, progress: Progress) -> Outcomes:
    specs = [task.spec for task in tasks if isinstance(task.spec, DenseSpec)]
    train, validation = data.rows("train"), data.rows("validation")
    members = [Member(spec, train, validation) for spec in specs]
    source = data.source(tasks[0].spec.pool, tasks[0].layers)
    if not source.whole:
        progress.say(f"heads: {len(data.records):,} rows do not fit into {in_words(data.limit)}; they are streamed")
    what = tasks[0].name if len(tasks) == 1 else f"{len(tasks)} heads"
    with progress.task(f"Training {what}", sum(spec.epochs for spec in specs), "epochs") as advance:
        found = train_all(members, source, len(data.classes), advance)
    # Once more with the validation rows, for as many epochs as were best without them.
    both = np.sort(np.concatenate([train, validation]))
    again = [i for i, fitted in enumerate(found) if specs[i].refit and fitted.best_epoch]
    longer = [specs[i].model_copy(update={"epochs": found[i].best_epoch, "patience": None}) for i in again]
    members = [Member(spec, both, validation, last=True) for spec in longer]
    refitted = dict(zip(again, train_all(members, source, len(data.classes)), strict=True))
    for i, (task, spec, fitted) in enumerate(zip(tasks, specs, found, strict=True)):
        yield task, _outcome(task, data, partial(_taken, spec, fitted, refitted.get(i), data, source.inputs))


def _taken(spec: DenseSpec, fitted: Fitted, refitted: Fitted | None, data: Dataset, inputs: int) -> Trained:
    head = DenseHead(spec, data.classes).take(fitted, inputs)
    if refitted is None:
        return Trained(head, fitted.seconds)
    final = DenseHead(spec, data.classes).take(refitted, inputs)
    final.history_, final.best_epoch_ = head.history_, head.best_epoch_
    return Trained(final, fitted.seconds + refitted.seconds, selected=head)


def _train_own(tasks: Sequence[HeadTask], data: Dataset, progress: Progress) -> Outcomes:
    X = data.X(tasks[0].spec.pool, tasks[0].layers)
    train, validation = data.rows("train"), data.rows("validation")

    def trained(task: HeadTask, spec: KerasSpec) -> Trained:
        held = (X[validation], data.y[validation])
        head = KerasHead(spec, data.classes, task.home).fit(X[train], data.y[train], *held, progress, task.name)
        if not spec.refit:
            return Trained(head, head.seconds_)
        both = np.sort(np.concatenate([train, validation]))
        again = spec.model_copy(update={"epochs": head.best_epoch_, "patience": None})
        final = KerasHead(again, data.classes, task.home).fit(
            X[both], data.y[both], *held, progress, task.name, last=True
        )
        final.spec, final.history_, final.best_epoch_ = spec, head.history_, head.best_epoch_
        return Trained(final, head.seconds_ + final.seconds_, selected=head)

    for task in tasks:
        if isinstance(task.spec, KerasSpec):
            yield task, _outcome(task, data, partial(trained, task, task.spec))


def _fit_baselines(tasks: Sequence[HeadTask], data: Dataset, progress: Progress) -> Outcomes:
    X = data.X(tasks[0].spec.pool, tasks[0].layers)
    specs = [task.spec for task in tasks if isinstance(task.spec, SklearnSpec)]
    train, validation = data.rows("train"), data.rows("validation")
    found = fit_all(specs, Shared(X[train], data.y[train]))
    again = [i for i, spec in enumerate(specs) if spec.refit]
    both = np.sort(np.concatenate([train, validation]))
    refitted = fit_all([specs[i] for i in again], Shared(X[both], data.y[both])) if again else []
    final = dict(zip(again, refitted, strict=True))

    def taken(i: int) -> Trained:
        head = SklearnHead(specs[i], data.classes).take(found[i])
        head.note(X[train], data.y[train], X[validation], data.y[validation])
        if i not in final:
            return Trained(head, found[i].seconds)
        other = SklearnHead(specs[i], data.classes).take(final[i])
        other.history_ = head.history_
        return Trained(other, found[i].seconds + final[i].seconds, selected=head)

    for i, task in enumerate(tasks):
        yield task, _outcome(task, data, partial(taken, i))


def _outcome(task: HeadTask, data: Dataset, train: Callable[[], Trained]) -> dict[str, Any] | HeadError:
    """Score a head and write its folder; what went wrong, where it cannot be trained.

    ``result.json`` is removed first and written last, so that a folder that has one is whole.
    """
    try:
        trained = train()
        logs = trained.log_probabilities(data, task.layers)
    except HeadstartError as error:
        return HeadError(f"head {task.name!r}: {error}")
    validation = data.rows("validation")
    t = temperature(data.y[validation], logs[validation])
    metrics = {}
    for split in SPLITS:
        if len(rows := data.rows(split)):
            y, mine = data.y[rows], logs[rows]
            found = scores(y, mine, data.classes, intervals=split != "train")
            calibrated = scores(y, cooled(mine, t), data.classes, intervals=split != "train")
            names = [name for name in calibrated if name.startswith(("log_loss", "ece"))]
            metrics[split] = found | {"calibrated": {name: calibrated[name] for name in names}}
    result = _result(task, trained.head, data, metrics, trained.seconds) | {"temperature": t}
    _write_folder(task.folder, trained.head, data, np.exp(logs), result)
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


def versions(spec: AnyHead) -> dict[str, str]:
    """Versions of what trained the head. A baseline does not load Keras to say Keras's."""
    if not isinstance(spec, SklearnSpec):
        from stages.bases.backend import versions as keras_versions

        return keras_versions()
    from importlib.metadata import version

    return {name: version(name) for name in ("scikit-learn", "skops", "numpy")}


def _write_folder(
    folder: Path, head: Head, data: Dataset, probabilities: NDArray[np.float64], result: dict[str, Any]
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
    write_csv(folder / "history.csv", ["epoch", *columns], rows)
    names = data.classes
    write_csv(
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


def load_head(folder: Path, spec: AnyHead, classes: tuple[str, ...]) -> Head:
    """The trained head of a folder."""
    path = folder / f"model{MODEL_SUFFIX[spec.kind]}"
    if isinstance(spec, DenseSpec):
        return DenseHead.load(path, spec, classes)
    return KerasHead.load(path, spec, classes) if isinstance(spec, KerasSpec) else SklearnHead.load(path, spec, classes)
