"""One Keras model trained by gradient descent, epoch after epoch, in a way that can be broken off and gone on with.

After each epoch all that training goes on with is written. Order of batches, dropout and mixup follow from the seed and the epoch
alone, so that a run which was killed ends as one that was not. Optimizers, losses, schedules and the step itself are Keras's.
"""

from collections.abc import Iterator
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cache.errors import DivergedError
from stages.bases.backend import load_keras
from stages.heads.checkpoint import Checkpoint, Kept
from stages.heads.keras_fit import LOG_LOSS, loss, metrics, optimizer
from stages.heads.tuned_spec import ScheduledSpec
from stages.progress import Progress
from stages.training.early_stopping import is_at_its_end, is_kept
from stages.training.member import Fitted
from stages.training.stack import Draw


class Batch(NamedTuple):
    """What a model is trained or scored on at once: its inputs (n, …), targets (n, outputs) float32, and weights (n,) where rows differ."""

    X: Any
    y: NDArray[np.float32]
    weight: NDArray[np.float32] | None = None


class Batches(Protocol):
    """Where batches come from: ``rows`` are those of one epoch; ``images_read`` counts the images that were decoded so far."""

    rows: int
    images_read: int

    def training(self, epoch: int) -> Iterator[Batch]:
        """Those of one epoch (from 0), in its order."""

    def validation(self) -> Iterator[Batch]:
        """Those that the epoch is chosen by."""


def train(
    model: Any,
    spec: ScheduledSpec,
    batches: Batches,
    checkpoint: Checkpoint,
    progress: Progress,
    name: str,
    until: int | None = None,
) -> Fitted:
    """Train a model, and leave it with the weights of its best epoch; or for so many epochs ``until`` its last, on the same schedule.

    It goes on where ``checkpoint`` was written. Raises DivergedError where the validation loss was never finite.
    """
    keras = load_keras()
    steps = -(-batches.rows // spec.batch_size)
    keep = {"name": LOG_LOSS, "label_smoothing": spec.label_smoothing}
    single = model.output_shape[-1] == 1
    told = keras.metrics.BinaryCrossentropy if single else keras.metrics.CategoricalCrossentropy
    model.compile(
        optimizer(spec, schedule(spec, steps)),
        loss(spec, single),
        metrics=metrics(spec, single)[:1],
        weighted_metrics=[told(**keep)],
        # XLA's convolutions are slower on a CPU than those of TensorFlow; other backends compile as they do by themselves.
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    model.optimizer.build(model.trainable_variables)
    weights = learned(model)
    state = [*weights, *model.optimizer.variables]
    kept = checkpoint.read([tuple(each.shape) for each in state], len(weights)) or Kept()
    fitted = Fitted(kept.history, kept.best_epoch, kept.best, kept.seconds)
    batches.images_read = kept.images_read
    epochs = until or spec.epochs
    if kept.state:
        put(state, kept.state)
        progress.say(
            f"head {name}: goes on after epoch {len(fitted.history)} of {epochs}, which an earlier run came to"
        )
    left, lacking = epochs - len(fitted.history), False
    with progress.task(f"Training {name}", left * batches.rows) as advance:
        while not (is_at_its_end(fitted, epochs, spec.patience) or _lost(fitted)):
            start, epoch = perf_counter(), len(fitted.history)
            restart_dropout(model, spec.seed, epoch)
            row = _pass(model, batches.training(epoch), advance)
            scored = _pass(model, batches.validation())
            row |= {f"val_{name}": value for name, value in scored.items()}
            fitted.history.append(row)
            if is_kept([fitted], [1], spec.monitor, last=until is not None):
                fitted.best_epoch, fitted.weights = epoch + 1, taken(weights)
            fitted.seconds += perf_counter() - start
            now_kept = Kept(
                fitted.history, fitted.best_epoch, fitted.seconds, batches.images_read, taken(state), fitted.weights
            )
            try:
                checkpoint.write(now_kept)
            except OSError as error:  # it is for a run that is killed, and no reason to end this one
                if not lacking:
                    progress.say(
                        f"{checkpoint.path}: cannot be written ({error.strerror}); a kill now costs what was trained of {name}"
                    )
                lacking = True
            progress.show([f"{name}: {_told(fitted, epochs)}"])
    progress.show([])
    if fitted.best_epoch is None:
        raise DivergedError.at(spec.learning_rate)
    put(weights, fitted.weights)
    return fitted


def schedule(spec: ScheduledSpec, steps: int) -> Any:
    """The learning rate, or Keras's schedule for it: a linear warm-up from 0, then half a cosine down to 0, or the rate as it is.

    I. Loshchilov and F. Hutter, "SGDR: Stochastic gradient descent with warm restarts", ICLR 2017, without the restarts.
    """
    if not (spec.warmup or spec.cosine):
        return spec.learning_rate
    warm = round(spec.warmup * steps)
    return load_keras().optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warm else spec.learning_rate,
        decay_steps=max(1, spec.epochs * steps - warm),
        alpha=0.0 if spec.cosine else 1.0,
        warmup_target=spec.learning_rate if warm else None,
        warmup_steps=warm,
    )


def learned(model: Any) -> list[Any]:
    """The variables that training changes: the weights of layers that are not frozen, and averages that these keep."""
    layers = [each for each in model._flatten_layers(include_self=False) if not hasattr(each, "layers")]
    return list({id(each): each for layer in layers if layer.trainable for each in layer.weights}.values())


def restart_dropout(model: Any, seed: int, epoch: int) -> None:
    """Have each layer that drops units draw anew, from the seed and the epoch alone."""
    layers = [each for each in model._flatten_layers() if hasattr(each, "seed_generator")]
    for layer, drawn in zip(layers, Draw(seed, epoch, 0).dropout(len(layers)), strict=True):
        layer.seed_generator.state.assign(np.array([drawn, 0], np.uint32))


def taken(variables: list[Any]) -> list[NDArray[Any]]:
    """The values of variables."""
    to_numpy = load_keras().ops.convert_to_numpy
    return [np.array(to_numpy(each)) for each in variables]


def put(variables: list[Any], values: list[NDArray[Any]]) -> None:
    """Give variables these values."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _pass(model: Any, batches: Iterator[Batch], advance: Any = None) -> dict[str, float]:
    """Train on batches, or score them where nothing is to ``advance``: loss and accuracy over all of their rows.

    The loss is cross-entropy, whatever the model is trained by, and the mean by the rows' weights.
    """
    step = model.test_on_batch if advance is None else model.train_on_batch
    rows, weights, loss, accuracy = 0, 0.0, 0.0, 0.0
    for batch in batches:
        n, logs = len(batch.y), step(batch.X, batch.y, batch.weight, return_dict=True)
        weight = n if batch.weight is None else float(batch.weight.sum())
        rows, accuracy = rows + n, accuracy + n * logs["accuracy"]
        weights, loss = weights + weight, loss + weight * logs[LOG_LOSS]
        if advance is not None:
            advance(n)
    return {"loss": float(loss / weights), "accuracy": float(accuracy / rows)}


def _lost(fitted: Fitted) -> bool:
    """Whether weights are no numbers any more."""
    return bool(fitted.history and not np.isfinite(fitted.history[-1]["loss"]))


def _told(fitted: Fitted, epochs: int) -> str:
    row, best = fitted.history[-1], fitted.best_epoch
    chosen = f"; best epoch {best}, loss {fitted.history[best - 1]['val_loss']:.4f}" if best else ""
    return (
        f"epoch {len(fitted.history)} of {epochs}: loss {row['loss']:.4f}, on validation {row['val_loss']:.4f}, "
        f"accuracy there {row['val_accuracy']:.3f}{chosen}"
    )
