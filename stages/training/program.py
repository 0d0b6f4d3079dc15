"""What trains and scores stacked heads: one epoch is one loop inside one function, which XLA compiles where that pays.

One matrix product serves all heads of a stack, and nothing is launched, copied or traced between two batches. Losses and
optimizers are those of Keras 3, written for stacked weights; tests hold them to ``keras.Model.fit``. Linear heads on frozen
features, trained together at many rates: M. Oquab et al., "DINOv2" (2023), appendix B.3.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from stages.bases.backend import compiled, gradients, load_keras
from stages.training.losses import correct, cross_entropy, focal, penalty, row_weights, within_norm
from stages.training.stack import Draws, Rates, Shape, State, Sums, Uses

# Keras's defaults.
RHO, EPSILON = 0.9, 1e-7
BETA_1, BETA_2 = 0.9, 0.999
BN_MOMENTUM, BN_EPSILON = 0.99, 1e-3


class Program(NamedTuple):
    """The functions for heads of one shape, of which the first two are compiled or traced.

    ``train(state, rates, X, y, draws) → (State, Sums)`` is one pass over the orders of the draws, which hold positions in ``X`` (n, d)
    and ``y`` (n,) int32. The loss in the sums is cross-entropy, whatever heads are trained by.
    ``evaluate(state, rates, X, y, member) → (Sums, logits)`` is without dropout: sums over the rows where ``member`` (K, n) is 1, and
    the logits (K, n, outputs) of all rows. ``outcomes(logits, y, whole)`` is what they say of each row, as in
    ``stages.training.outcomes``: (K, n) each, and where the ``whole`` is asked for, all log-probabilities (K, n, classes).
    """

    train: Callable[..., tuple[State, Sums]]
    evaluate: Callable[..., tuple[Sums, Any]]
    outcomes: Callable[..., tuple[Any, ...]]


@lru_cache(maxsize=64)
def program(shape: Shape, uses: Uses, xla: bool) -> Program:
    """The program for heads of a shape, and what they make use of; what trains them is compiled by ``xla``, or traced alone."""
    keras = load_keras()
    ops = keras.ops

    def train(state: State, rates: Rates, X: Any, y: Any, draws: Draws) -> tuple[State, Sums]:
        def rows_at(places: Any) -> tuple[Any, Any]:
            places = ops.maximum(places, 0)
            return ops.cast(ops.take(X, places, axis=0), "float32"), ops.take(y, places, axis=0)

        def step(i: Any, carried: tuple[State, Sums]) -> tuple[State, Sums]:
            before, sums = carried
            order = draws.orders[i]
            valid = ops.cast(order >= 0, "float32")
            inputs, labels = rows_at(order)
            labelled = [(1.0, labels)]
            if uses.mixup:
                others, other_labels = rows_at(draws.partners[i])
                share = draws.shares[i]
                inputs = inputs * share[..., None] + others * (1.0 - share[..., None])
                labelled = [(share, labels), (1.0 - share, other_labels)]

            def loss_of(weights: Sequence[Any]) -> tuple[Any, Any]:
                dropped = _Dropout(draws.seeds, i, rates.dropout) if uses.dropout else None
                logits, moving = forward(shape, weights, before.moving, inputs, valid, dropped)

                def over_rows(value: Callable[[Any], Any]) -> Any:
                    """The sum for each head (K,), given what rows (K, n) with these labels have; mixed rows have two by their shares."""
                    return ops.sum(sum(value(each) * share for share, each in labelled) * valid, axis=1)

                def weighted(loss: Callable[..., Any]) -> Any:
                    return over_rows(lambda y: loss(logits, y, rates, shape) * row_weights(rates.class_weight, y))

                told, right, rows = weighted(cross_entropy), over_rows(partial(correct, logits)), ops.sum(valid, axis=1)
                value = ops.sum((weighted(focal) if uses.focal else told) / ops.maximum(rows, 1.0))
                if uses.l2:
                    value = value + penalty(shape, weights, rates)
                return value, (Sums(told, right, rows), moving)

            (found, moving), grads = gradients(loss_of, list(before.weights))
            after = _updated(shape.optimizer, before, grads, rates)._replace(moving=list(moving))
            if uses.max_norm:
                after = after._replace(weights=within_norm(shape, after.weights, rates))
            if uses.ragged:
                here = ops.max(valid, axis=1)[:, None, None] > 0
                after = keras.tree.map_structure(lambda new, old: ops.where(here, new, old), after, before)
            return after, Sums(*(total + part for total, part in zip(sums, found, strict=True)))

        zeros = ops.zeros((draws.orders.shape[1],))
        return ops.fori_loop(0, draws.orders.shape[0], step, (state, Sums(zeros, zeros, zeros)))  # type: ignore[no-any-return]

    def evaluate(state: State, rates: Rates, X: Any, y: Any, member: Any) -> tuple[Sums, Any]:
        logits, _ = forward(shape, state.weights, state.moving, ops.cast(X, "float32"), None, None)
        labels = ops.broadcast_to(y[None], (logits.shape[0], X.shape[0]))
        loss = cross_entropy(logits, labels, rates, shape)
        sums = (ops.sum(each * member, axis=1) for each in (loss, correct(logits, labels), ops.ones_like(member)))
        return Sums(*sums), logits

    # Scoring is a few operations a head and epoch: less than XLA would take to compile it.
    return Program(compiled(train, xla), compiled(evaluate, xla=False), _outcomes)


class _Dropout(NamedTuple):
    """Which units are kept: a hash of the layer's seed, the step and the place in the batch.

    A generator of the backend would be drawn from for the whole stack, and give a head other masks in another stack. The hash
    is "lowbias32" of C. Wellons' hash prospector, in 32-bit integers that wrap around, as every backend has them.
    """

    seeds: Any
    step: Any
    drop: Any

    def __call__(self, values: Any, layer: int) -> Any:
        ops = load_keras().ops
        _, rows, units = values.shape
        place = ops.convert_to_tensor(np.arange(rows * units, dtype=np.int32).reshape(1, rows, units))
        step = ops.cast(ops.convert_to_tensor(self.step), "int32") * (rows * units)
        x = (place + step) * np.uint32(0x9E3779B9).view(np.int32) + self.seeds[layer][:, None, None]
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
            x = ops.bitwise_xor(x, _shifted(x, shift)) * np.uint32(factor).view(np.int32)
        x = ops.bitwise_xor(x, _shifted(x, 16))
        uniform = ops.cast(_shifted(x, 8), "float32") * np.float32(2**-24)
        return ops.where(uniform >= self.drop, values / (1.0 - self.drop), ops.zeros_like(values))


def _shifted(x: Any, by: int) -> Any:
    """To the right, zeros from the left: the shift of signed integers would bring in the sign."""
    ops = load_keras().ops
    return ops.bitwise_and(ops.right_shift(x, np.int32(by)), np.int32(2 ** (32 - by) - 1))


def forward(
    shape: Shape, weights: Sequence[Any], moving: Sequence[Any], inputs: Any, valid: Any, dropout: _Dropout | None
) -> tuple[Any, list[Any]]:
    """Logits (K, n, outputs) of K heads, and their moving averages after it.

    ``inputs`` are (n, d) for all heads or (K, n, d); ``valid`` (K, n) is 1 for rows that count in training, None at
    inference.
    """
    keras = load_keras()
    activation = keras.activations.get(shape.activation)
    after = list(moving)
    hidden, given = inputs, iter(weights)
    for layer in range(len(shape.units)):
        hidden = _product(hidden, next(given))
        if shape.batch_norm:
            averages = moving[2 * layer : 2 * layer + 2]
            hidden, after[2 * layer : 2 * layer + 2] = _normalised(hidden, next(given), next(given), averages, valid)
        else:
            hidden = hidden + next(given)
        hidden = activation(hidden)
        if dropout is not None:
            hidden = dropout(hidden, layer)
    if not shape.units and dropout is not None:
        hidden = dropout(hidden, 0)
    return _product(hidden, next(given)) + next(given), after


def _product(hidden: Any, kernel: Any) -> Any:
    ops = load_keras().ops
    return ops.einsum("nd,kdu->knu", hidden, kernel) if len(hidden.shape) == 2 else ops.matmul(hidden, kernel)


def _normalised(x: Any, gamma: Any, beta: Any, moving: Sequence[Any], valid: Any) -> tuple[Any, list[Any]]:
    """Batch normalisation with the statistics of the rows that count, or with the moving averages at inference."""
    ops = load_keras().ops
    mean, variance = moving
    after = list(moving)
    if valid is not None:
        share = (valid / ops.maximum(ops.sum(valid, axis=1, keepdims=True), 1.0))[:, :, None]
        mean = ops.sum(x * share, axis=1, keepdims=True)
        variance = ops.sum(ops.square(x - mean) * share, axis=1, keepdims=True)
        after = [old * BN_MOMENTUM + new * (1 - BN_MOMENTUM) for old, new in zip(moving, (mean, variance), strict=True)]
    return (x - mean) * (gamma * ops.rsqrt(variance + BN_EPSILON)) + beta, after


def _outcomes(logits: Any, y: Any, whole: bool = False) -> tuple[Any, ...]:
    """The predicted class, the log-probability (nats) of the true one, and how many classes are above it, each (K, n)."""
    ops = load_keras().ops
    if logits.shape[-1] == 1:
        z = logits[..., 0]
        towards = ops.where(ops.broadcast_to(y[None], z.shape) > 0, z, -z)
        # As log_softmax of (0, z), stable for any logit.
        log_p = ops.minimum(towards, 0.0) - ops.log1p(ops.exp(-ops.abs(z)))
        return ops.cast(z > 0, "int32"), log_p, ops.cast(towards < 0, "int32")
    logs = ops.log_softmax(logits, axis=-1)
    true = ops.take_along_axis(logs, ops.broadcast_to(y[None, :, None], (*logits.shape[:2], 1)), axis=-1)
    above = (
        ops.sum(ops.cast(logs >= true, "int32"), axis=-1) - 1
    )  # what is as probable counts, but for the class itself
    found = (ops.argmax(logits, axis=-1), true[..., 0], above)
    return (*found, logs) if whole else found


def _updated(optimizer: str, state: State, grads: Sequence[Any], rates: Rates) -> State:
    """The state after one step. As in Keras, weights decay before the step and in proportion to the rate."""
    ops = load_keras().ops
    steps = state.steps + 1.0
    decay = 1.0 - rates.weight_decay * rates.learning_rate
    weights = [each * decay for each in state.weights]
    n = len(weights)
    if optimizer == "sgd":
        slots = [m * rates.momentum - g * rates.learning_rate for m, g in zip(state.slots, grads, strict=True)]
        return State([w + m for w, m in zip(weights, slots, strict=True)], slots, state.moving, steps)
    if optimizer == "rmsprop":
        slots = [RHO * v + (1 - RHO) * ops.square(g) for v, g in zip(state.slots, grads, strict=True)]
        changes = [g * rates.learning_rate * ops.rsqrt(v + EPSILON) for g, v in zip(grads, slots, strict=True)]
    else:
        first = [m + (g - m) * (1 - BETA_1) for m, g in zip(state.slots[:n], grads, strict=True)]
        second = [v + (ops.square(g) - v) * (1 - BETA_2) for v, g in zip(state.slots[n:], grads, strict=True)]
        rate = rates.learning_rate * ops.sqrt(1.0 - BETA_2**steps) / (1.0 - BETA_1**steps)
        changes = [m * rate / (ops.sqrt(v) + EPSILON) for m, v in zip(first, second, strict=True)]
        slots = [*first, *second]
    return State([w - change for w, change in zip(weights, changes, strict=True)], slots, state.moving, steps)
