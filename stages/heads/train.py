"""Stage two: heads are trained, scored on every split, and written, those on the same features together."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from cache.errors import DataError, HeadError, HeadstartError
from cache.manifest import SPLITS
from stages.bases import backend
from stages.heads.abstention import Confident, selective
from stages.heads.baselines import SklearnHead
from stages.heads.calibration import cooled, temperature
from stages.heads.dataset import Dataset
from stages.heads.dense import DenseHead
from stages.heads.ensemble import EnsembleHead, average
from stages.heads.estimators import classifier
from stages.heads.fitting import fit_all, shared
from stages.heads.head import Head, Rows
from stages.heads.looks import note_look
from stages.heads.metrics import CALIBRATED, scores
from stages.heads.own import KerasHead
from stages.heads.results import MODEL_SUFFIX, as_trained, whole_result, write_head
from stages.heads.scored import SCORING
from stages.heads.spec import AnyHead, EnsembleSpec, HeadSpec, KerasSpec, SklearnSpec
from stages.heads.task import HeadTask, Spoken, Trained, Trainings
from stages.heads.tuned import TunedHead
from stages.heads.tuning import tune
from stages.progress import SILENT, Progress, in_bytes
from stages.training.member import Member
from stages.training.spec import DenseSpec, Pool
from stages.training.together import train_all


def check_spec(name: str, spec: AnyHead, section: str = "heads") -> None:
    """Raise HeadError now for what would fail when the head is trained: an unknown estimator or parameter."""
    if isinstance(spec, SklearnSpec):
        try:
            classifier(spec)
        except HeadError as error:
            raise HeadError(f"[{section}.{name.split('@')[0]}] {error}") from error


def load_head(folder: Path) -> Head:
    """The trained head of a folder. Raises HeadError where there is none, or where it is damaged."""
    result = whole_result(folder)
    spec: AnyHead = TypeAdapter(HeadSpec).validate_python(result["spec"])
    if isinstance(spec, EnsembleSpec):
        return EnsembleHead.load(folder / "model.json", spec, result["classes"], load_head)
    kinds: dict[str, type[Head]] = {"dense": DenseHead, "keras": KerasHead, "sklearn": SklearnHead}
    return kinds.get(spec.kind, TunedHead).load(folder / f"model{MODEL_SUFFIX[spec.kind]}", spec, result["classes"])


Outcomes = Iterator[tuple[HeadTask, dict[str, Any] | HeadError]]


def train_heads(tasks: Sequence[HeadTask], data: Dataset, progress: Progress = SILENT) -> Outcomes:
    """Train heads on one base; the result of each as soon as its folder is written, or why it could not be trained.

    Heads are trained on train, their epoch is chosen on validation, and every split is scored. Dense heads on the same features
    are trained together, and baselines share what they have in common.
    """
    groups: dict[tuple[str, Pool, tuple[str, ...], bool], list[HeadTask]] = {}
    for task in tasks:
        groups.setdefault((task.spec.kind, task.spec.pool, task.layers, task.spec.views), []).append(task)
    trainers = {"dense": _train_dense, "keras": _train_own, "sklearn": _fit_baselines, "ensemble": _average}
    trainers |= {"finetune": tune, "end_to_end": tune, "cnn": tune}
    for (kind, *_), group in groups.items():
        try:
            for task, train in trainers[kind](group, data, progress):
                yield task, _outcome(task, data, train)
        except DataError as error:
            yield from ((task, HeadError(f"head {task.name!r}: {error}")) for task in group)


def _train_dense(tasks: Sequence[HeadTask], data: Dataset, progress: Progress) -> Trainings:
    specs = [task.spec for task in tasks if isinstance(task.spec, DenseSpec)]
    train, validation, both = data.rows("train"), data.rows("validation"), data.rows("train", "validation")
    source = data.source(tasks[0].spec.pool, tasks[0].layers, tasks[0].spec.views)
    if not source.whole:
        progress.say(f"heads: {len(data.records):,} rows do not fit into {in_bytes(data.limit)}; they are streamed")
    what = tasks[0].name if len(tasks) == 1 else f"{len(tasks)} heads"
    with progress.task(f"Training {what}", sum(spec.epochs for spec in specs), "epochs") as advance:
        found = train_all([Member(spec, train, validation) for spec in specs], source, len(data.classes), advance)
    # Once more with the validation rows, for as many epochs as were best without them.
    again = [i for i, fitted in enumerate(found) if specs[i].refit and fitted.best_epoch]
    longer = [_for_epochs(specs[i], found[i].best_epoch) for i in again]
    members = [Member(spec, both, validation, last=True) for spec in longer]
    refitted = dict(zip(again, train_all(members, source, len(data.classes)), strict=True))

    def taken(i: int) -> Trained:
        head = DenseHead(specs[i], data.classes).take(found[i], source.inputs)
        if i not in refitted:
            return Trained.of(head)
        return Trained.of(head, DenseHead(specs[i], data.classes).take(refitted[i], source.inputs))

    yield from ((task, partial(taken, i)) for i, task in enumerate(tasks))


def _train_own(tasks: Sequence[HeadTask], data: Dataset, progress: Progress) -> Trainings:
    views = tasks[0].spec.views
    X = data.X(tasks[0].spec.pool, tasks[0].layers, views)
    validation = data.rows("validation")

    def fitted(task: HeadTask, spec: KerasSpec, *splits: str, last: bool = False) -> KerasHead:
        rows = data.to_train(X, data.rows(*splits), views)
        head = KerasHead(spec, data.classes, task.home, last, views=rows.views)
        return head.fit(rows.X, rows.y, X[validation], data.y[validation], progress, task.name)

    def trained(task: HeadTask, spec: KerasSpec) -> Trained:
        head = fitted(task, spec, "train")
        if not spec.refit:
            return Trained.of(head)
        final = fitted(task, _for_epochs(spec, head.best_epoch_), "train", "validation", last=True)
        final.spec = spec
        return Trained.of(head, final)

    yield from ((task, partial(trained, task, task.spec)) for task in tasks if isinstance(task.spec, KerasSpec))


def _fit_baselines(tasks: Sequence[HeadTask], data: Dataset, progress: Progress) -> Trainings:
    views = tasks[0].spec.views
    X = data.X(tasks[0].spec.pool, tasks[0].layers, views)
    specs = [task.spec for task in tasks if isinstance(task.spec, SklearnSpec)]
    train, validation, both = data.rows("train"), data.rows("validation"), data.rows("train", "validation")
    found = fit_all(specs, shared(data, X, train, views))
    again = [i for i, spec in enumerate(specs) if spec.refit]
    more = fit_all([specs[i] for i in again], shared(data, X, both, views)) if again else []
    refitted = dict(zip(again, more, strict=True))

    def taken(i: int) -> Trained:
        head = SklearnHead(specs[i], data.classes).take(found[i])
        head.note(Rows(X[train], data.y[train]), Rows(X[validation], data.y[validation]))
        if i not in refitted:
            return Trained.of(head)
        return Trained.of(head, SklearnHead(specs[i], data.classes).take(refitted[i]))

    yield from ((task, partial(taken, i)) for i, task in enumerate(tasks))


def _average(tasks: Sequence[HeadTask], data: Dataset, progress: Progress) -> Trainings:
    for task in tasks:
        if isinstance(task.spec, EnsembleSpec):
            yield task, partial(average, task.spec, task.needs, task.folder, data)


def _for_epochs(spec: Any, epochs: int | None) -> Any:
    """The spec of a refit: for as many epochs as were best before."""
    return spec.model_copy(update={"epochs": epochs, "patience": None})


def _outcome(task: HeadTask, data: Dataset, train: Callable[[], Trained | Spoken]) -> dict[str, Any] | HeadError:
    """Score a head and write its folder; what went wrong, where it cannot be trained."""
    try:
        needs = {name: as_trained(whole_result(folder)) for name, folder in task.needs.items()}
        trained = train()
        logs = trained.log_probabilities(data, task.layers)
    except HeadstartError as error:
        return HeadError(f"head {task.name!r}: {error}")
    head, validation = trained.head, data.rows("validation")
    t = temperature(data.y[validation], logs[validation])
    result = {
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
        "seconds": round(trained.seconds, 3),
        "epochs": len(head.history_),
        "best_epoch": head.best_epoch_,
        "parameters": head.n_parameters_,
        "probabilities": head.probabilities_,
        "warnings": head.warnings_,
        "versions": versions(task.spec),
        "metrics": {split: _metrics(data, logs, split, t) for split in SPLITS if len(data.rows(split))},
        "scoring": SCORING,
        "temperature": t,
        "abstention": selective({s: _confident(data, logs, s, t) for s in SPLITS[1:] if len(data.rows(s))}),
    }
    result |= ({"needs": needs} if needs else {}) | head.told_
    result["test_looks"] = note_look(task.board or task.folder.parent, data.manifest, task.key)
    write_head(task.folder, head, data.records, logs, result)
    return result


def _metrics(data: Dataset, logs: NDArray[np.float64], split: str, t: float) -> dict[str, Any]:
    """Scores on a split, and those that the temperature ``t`` changes, at that temperature. Copies of an image are one."""
    rows, copies = data.distinct(split), len(data.rows(split))
    groups = None if data.groups is None else data.groups[rows]
    found, calibrated = (
        scores(data.y[rows], each, data.classes, intervals=split != "train", groups=groups)
        for each in (logs[rows], cooled(logs[rows], t))
    )
    changed = {name: value for name, value in calibrated.items() if name.startswith(CALIBRATED)}
    return found | {"copies": copies - len(rows), "calibrated": changed}


def _confident(data: Dataset, logs: NDArray[np.float64], split: str, t: float) -> Confident:
    rows = data.distinct(split)
    p = np.exp(cooled(logs[rows], t))
    return Confident(
        p.max(axis=1), p.argmax(axis=1) == data.y[rows], None if data.groups is None else data.groups[rows]
    )


def versions(spec: AnyHead) -> dict[str, str]:
    """Versions of what trained the head. A baseline does not load Keras to say Keras's."""
    if isinstance(spec, SklearnSpec):
        return {name: version(name) for name in ("scikit-learn", "skops", "numpy")}
    if isinstance(spec, EnsembleSpec):
        return {name: version(name) for name in ("numpy", "scipy")}
    return backend.versions()
