"""Heads that are trained beyond frozen features, one after another: fine-tuned from the cache, end to end, or from scratch."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import HeadError
from cache.files import digest_json
from stages.bases.backend import load_keras
from stages.bases.model import build
from stages.bases.parts import Tail, check_base, found_tail
from stages.bases.spec import BaseSpec
from stages.heads.batches import SCORED, FeatureBatches, ImageBatches
from stages.heads.checkpoint import Checkpoint
from stages.heads.dataset import Dataset
from stages.heads.dense import DenseHead
from stages.heads.epochs import Batches, train
from stages.heads.results import MODEL_SUFFIX, as_trained, whole_result
from stages.heads.task import HeadTask, Spoken, Trainings
from stages.heads.tuned import TunedHead, finetuned, network, on_base
from stages.heads.tuned_spec import CnnSpec, EndToEndSpec, FinetuneSpec
from stages.progress import Progress, in_bytes
from stages.training.spec import DenseSpec

# What a head says of all images: log-probabilities (n, classes).
Says = Callable[[TunedHead], NDArray[np.float64]]


def tune(tasks: Sequence[HeadTask], data: Dataset, progress: Progress) -> Trainings:
    """Each task with what trains it."""
    for task in tasks:
        train = finetuned_head if isinstance(task.spec, FinetuneSpec) else _on_images
        yield task, partial(train, task, data, progress)


def check_start(spec: FinetuneSpec | EndToEndSpec, end: str, base: BaseSpec, built: Callable[[], Any]) -> None:
    """Raise BaseError or HeadError now for what would fail when a head is trained on the layer ``end`` of a base, which is ``built``
    where it is needed.
    """
    check_base(base)
    if spec.start is not None:
        tail = found_tail(built(), base, spec.start, end)
        if isinstance(spec, FinetuneSpec):
            _check_there(tail, base.cuts)


def _check_there(tail: Tail, cuts: Sequence[str]) -> None:
    """Raise HeadError where the activations before a part of a base are not in the cache."""
    if tail.before not in cuts:
        shape = " × ".join(map(str, tail.shape))
        named = ", ".join(f'"{layer}"' for layer in (tail.before, *cuts))
        raise HeadError(
            f"from: training begins with {tail.cut.behind[0]!r}, on the activations of {tail.before!r} ({shape}, "
            f"{in_bytes(tail.bytes)} an image as float16), which {tail.base} does not extract; set layers = [{named}] in the base"
        )


def finetuned_head(task: HeadTask, data: Dataset, progress: Progress) -> Spoken:
    """Train a dense head and the last layers of its base on the activations before these."""
    spec, origin = task.spec, task.origin
    assert isinstance(spec, FinetuneSpec) and origin and origin.spec and origin.weights
    base, weights, (folder,) = origin.spec, origin.weights, task.needs.values()
    built = [build(base, weights, "float32")]  # taken once: training changes it
    tail = found_tail(built[0], base, spec.start, task.layers[-1])
    _check_there(tail, list(data.stores))
    source = data.source(spec.pool, [tail.before], spec.views)
    if not source.whole:
        progress.say(
            f"heads: {len(data.records):,} rows of {tail.before} do not fit into {in_bytes(data.limit)}; they are streamed"
        )
    told = whole_result(folder)
    begun = DenseSpec.model_validate(told["spec"])
    # Whichever way its weights were found, they know nothing of the validation images.
    if begun.refit:
        raise HeadError(
            f"head: {told['head']} was refitted on the validation images, which are to choose the epoch; take one without refit"
        )

    def model() -> Any:
        dense = DenseHead.load(folder / f"model{MODEL_SUFFIX['dense']}", begun, data.classes)
        return finetuned(built.pop() if built else build(base, weights, "float32"), tail, dense)

    def batches(rows: NDArray[np.int64]) -> FeatureBatches:
        return FeatureBatches(source, tail.shape, spec, rows, data.rows("validation"), len(data.classes))

    def says(head: TunedHead) -> NDArray[np.float64]:
        logs = np.empty((len(data.records), len(data.classes)))
        for positions, X in data.parts(spec.pool, [tail.before]):
            logs[positions] = head.predict_log_proba(X)
        return logs

    found = _trained(task, spec, data, model, batches, says, progress)
    found.head.told_ |= {
        "layers": [tail.before],
        "feature_shapes": {tail.before: list(tail.shape)},
        "tuned": {"from": tail.cut.behind[0], "to": tail.end},
    }
    return found


def _on_images(task: HeadTask, data: Dataset, progress: Progress) -> Spoken:
    """Train a model on image files: from scratch, or with a base."""
    spec, origin = task.spec, task.origin
    assert isinstance(spec, EndToEndSpec | CnnSpec) and origin
    if origin.root is None:
        raise HeadError(
            f"a head of kind {spec.kind!r} is trained on the image files, and their folder is not here; train it where they are, and copy "
            f"{task.folder}"
        )
    root, images = origin.root, spec.images if isinstance(spec, CnnSpec) else origin.spec
    assert images is not None

    def model() -> Any:
        if isinstance(spec, CnnSpec):
            return network(spec, len(data.classes))
        assert origin.weights is not None
        check_base(images)
        base, end = build(images, origin.weights, "float32"), task.layers[-1]
        tail = None if spec.start is None else found_tail(base, images, spec.start, end)
        return on_base(base, images, end, tail, spec, data.classes)

    def batches(rows: NDArray[np.int64]) -> ImageBatches:
        view = origin.view if spec.views else None
        told = (rows, data.rows("validation"), len(data.classes), view)
        return ImageBatches(root, data.records, data.y, images, spec, *told)

    def says(head: TunedHead) -> NDArray[np.float64]:
        everything = np.arange(len(data.records))
        with progress.task(f"Scoring {task.name}", len(everything)) as advance:
            logs = []
            for rows, pixels in batches(everything).decoded(everything, SCORED):
                logs.append(head.predict_log_proba(pixels.astype(np.float32)))
                advance(len(rows))
        return np.concatenate(logs)

    found = _trained(task, spec, data, model, batches, says, progress)
    found.head.told_ |= {"layers": []}
    return found


def _trained(
    task: HeadTask,
    spec: Any,
    data: Dataset,
    model: Callable[[], Any],
    batches: Callable[[NDArray[np.int64]], Batches],
    says: Says,
    progress: Progress,
) -> Spoken:
    """Train a model, and where it is to be refitted once more on train and validation together; and what it says of all images."""

    # What it begins with may have been trained again, to other weights with the same key.
    key = digest_json([task.key, [as_trained(whole_result(folder)) for folder in task.needs.values()]])

    def once(name: str, *splits: str, until: int | None = None) -> TunedHead:
        keras = load_keras()
        keras.utils.clear_session()
        keras.utils.set_random_seed(spec.seed)
        made, rows = model(), batches(data.rows(*splits))
        checkpoint = Checkpoint(task.folder / f"checkpoint{name}.npz", key)
        fitted = train(made, spec, rows, checkpoint, progress, task.name, until)
        return TunedHead(spec, data.classes).take(made, fitted, rows.images_read)

    head = once("", "train")
    logs = says(head)
    if not spec.refit:
        return Spoken(head, head.seconds_, logs)
    final = once("-refit", "train", "validation", until=head.best_epoch_)
    held, whole = data.rows("validation"), says(final)
    whole[held] = logs[held]  # a head that has seen the validation images does not speak for them
    final.history_, final.best_epoch_ = head.history_, head.best_epoch_
    final.told_["images_read"] += head.told_["images_read"]
    return Spoken(final, head.seconds_ + final.seconds_, whole)
