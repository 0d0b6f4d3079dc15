"""What ``keras.Model.fit`` is given for a head that is trained in epochs: optimizer, loss, what it tells, and its batches."""

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.bases.backend import load_keras
from stages.heads.head import Rows
from stages.training.early_stopping import criterion
from stages.training.spec import TrainedSpec
from stages.training.stack import NOTHING, Draw

LOG_LOSS = "log_loss"


def optimizer(spec: TrainedSpec, rate: Any = None) -> Any:
    """The Keras optimizer that the spec names, with another ``rate`` than its own where a schedule says it; weight decay is decoupled
    from the gradient, as in AdamW.
    """
    found = load_keras().optimizers
    kinds = {"rmsprop": found.RMSprop, "adam": found.Adam, "adamw": found.AdamW, "sgd": found.SGD}
    extra: dict[str, Any] = {"momentum": spec.momentum} if spec.optimizer == "sgd" else {}
    if spec.weight_decay or spec.optimizer == "adamw":
        extra["weight_decay"] = spec.weight_decay
    return kinds[spec.optimizer](learning_rate=spec.learning_rate if rate is None else rate, **extra)


def loss(spec: TrainedSpec, single: bool) -> Any:
    """The spec's loss with its label smoothing: of a ``single`` probability, or of one for each class."""
    losses, smoothing = load_keras().losses, spec.label_smoothing
    if spec.loss == "focal" and single:
        return losses.BinaryFocalCrossentropy(gamma=spec.focal_gamma, label_smoothing=smoothing)
    if spec.loss == "focal":
        return losses.CategoricalFocalCrossentropy(alpha=1.0, gamma=spec.focal_gamma, label_smoothing=smoothing)
    kind = losses.BinaryCrossentropy if single else losses.CategoricalCrossentropy
    return kind(label_smoothing=smoothing)


def metrics(spec: TrainedSpec, single: bool) -> list[Any]:
    """What is told of each epoch beside the loss; cross-entropy, where that is another."""
    keras = load_keras()
    found: list[Any] = ["accuracy"]
    if spec.mixup and single:  # a label between two classes is for the nearer one, as in those of several classes
        nearer = keras.metrics.MeanMetricWrapper(
            lambda y, p: keras.ops.cast(keras.ops.equal(y > 0.5, p > 0.5), "float32"), name="accuracy"
        )
        found = [nearer]
    if spec.loss == "focal":
        kind = keras.metrics.BinaryCrossentropy if single else keras.metrics.CategoricalCrossentropy
        found.append(kind(name=LOG_LOSS, label_smoothing=spec.label_smoothing))
    return found


def told(spec: TrainedSpec, logs: Mapping[str, float]) -> dict[str, float]:
    """A line of the history, in which the loss is cross-entropy, whatever the head is trained by."""
    if spec.loss != "focal":
        return dict(logs)
    return {name.replace(LOG_LOSS, "loss"): value for name, value in logs.items() if name not in ("loss", "val_loss")}


def best_kept(spec: TrainedSpec) -> Any:
    """The callback that keeps the best epoch by what the spec monitors, and stops where its patience is at an end."""

    class Best(load_keras().callbacks.EarlyStopping):  # type: ignore[misc]
        def get_monitor_value(self, logs: Mapping[str, float]) -> float:
            return criterion([told(spec, logs)], [1], spec.monitor)

    return Best(mode="min", patience=spec.patience or spec.epochs, restore_best_weights=True)


def mixed(
    X: Any,
    others: Any,
    hot: NDArray[np.float32],
    hot_others: NDArray[np.float32],
    shares: NDArray[np.float32],
    single: bool,
) -> tuple[Any, NDArray[np.float32], NDArray[np.float32]]:
    """Rows that are mixed by twos, ``X`` (n, …) float32 with ``others``, of NumPy or the backend; their targets and their weights (n,).

    ``shares`` (n,) are those of the first. ``hot`` (n, classes) have the weights of the rows' classes in the place of ones, so that a row
    weighs what its two classes do, by their shares. Targets are of a ``single`` probability, or of one for each class.
    """
    along: Any = shares.reshape(-1, *[1] * (len(X.shape) - 1))
    if not isinstance(X, np.ndarray):
        along = load_keras().ops.convert_to_tensor(along)
    share = shares[:, None]
    y = hot * share + hot_others * (1 - share)
    weight = y.sum(axis=1)
    y = y / weight[:, None]
    return X * along + others * (1 - along), y[:, 1:] if single else y, weight


def drawn(
    rows: Rows, views: NDArray[np.int32] | None, class_weights: NDArray[np.float32], spec: TrainedSpec, single: bool
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]]:
    """Batches without end, epoch after epoch, of features, of which a view is drawn for each row or which are mixed by twos, their
    labels and weights.

    In the order, views and pairs of a dense head with the same seed. ``views`` (m, v) are the places in ``rows`` of m images and of their
    views; without them all rows are images.
    """
    places = np.arange(len(rows.y if views is None else views), dtype=np.int32)
    hot = np.diag(class_weights)[rows.y]
    for epoch in count():
        draw = Draw(spec.seed, epoch, 0)
        orders = draw.order(places, spec.batch_size, -(-len(places) // spec.batch_size))
        if views is not None:
            orders = draw.views(orders, views)
        pairs = draw.mixup(orders, spec.mixup) if spec.mixup else (orders, np.ones(orders.shape, np.float32))
        for order, partners, shares in zip(orders, *pairs, strict=True):
            n = int((order != NOTHING).sum())
            one, other = order[:n], partners[:n]
            yield mixed(rows.X[one], rows.X[other], hot[one], hot[other], shares[:n], single)
