"""What stacked heads are trained by, and what is told of it: cross-entropy, the focal loss, L2 and max-norm.

They are those of Keras 3, written for stacked weights; tests hold them to Keras's own.
"""

from collections.abc import Sequence
from typing import Any

from stages.bases.backend import load_keras
from stages.training.stack import Rates, Shape

# Keras's, to which it clips probabilities: the logarithm of what was missed stays finite.
EPSILON = 1e-7


def cross_entropy(logits: Any, labels: Any, rates: Rates, shape: Shape) -> Any:
    """Cross-entropy of each row (K, n), in nats, with each head's label smoothing."""
    ops = load_keras().ops
    target = _target(labels, rates, shape)
    if shape.outputs == 1:
        return _binary(logits[..., 0], target)
    return -ops.sum(target * ops.log_softmax(logits, axis=-1), axis=-1)


def focal(logits: Any, labels: Any, rates: Rates, shape: Shape) -> Any:
    """The focal loss of each row (K, n): T.-Y. Lin et al., "Focal loss for dense object detection", ICCV 2017, without its weight α.

    Cross-entropy, in which a class counts less the more of its probability was given to it: times what is missing, to each head's γ.
    """
    ops = load_keras().ops
    target = _target(labels, rates, shape)
    if shape.outputs == 1:
        z = logits[..., 0]
        missing = target * ops.sigmoid(-z) + (1.0 - target) * ops.sigmoid(z)
        return _power(missing, rates.focal_gamma[:, 0]) * _binary(z, target)
    logs = ops.log_softmax(logits, axis=-1)
    return -ops.sum(target * _power(-ops.expm1(logs), rates.focal_gamma) * logs, axis=-1)


def _target(labels: Any, rates: Rates, shape: Shape) -> Any:
    """What each head should say of each row: (K, n), the probability of the second class, or (K, n, classes)."""
    ops = load_keras().ops
    if shape.outputs == 1:
        return ops.cast(labels, "float32") * (1.0 - rates.label_smoothing[:, 0]) + 0.5 * rates.label_smoothing[:, 0]
    return ops.one_hot(labels, shape.outputs) * (1.0 - rates.label_smoothing) + rates.label_smoothing / shape.outputs


def _binary(z: Any, target: Any) -> Any:
    ops = load_keras().ops
    # max(z, 0) − z·target + log(1 + e^−|z|): stable for any logit.
    return ops.maximum(z, 0.0) - z * target + ops.log1p(ops.exp(-ops.abs(z)))


def _power(missing: Any, gamma: Any) -> Any:
    """1 to the last bit where γ is 0, with a finite gradient everywhere."""
    ops = load_keras().ops
    return ops.exp(gamma * ops.log(ops.maximum(missing, EPSILON)))


def correct(logits: Any, labels: Any) -> Any:
    """1 for each row (K, n) whose most probable class is the label."""
    ops = load_keras().ops
    found = logits[..., 0] > 0 if logits.shape[-1] == 1 else ops.argmax(logits, axis=-1)
    return ops.cast(ops.equal(ops.cast(found, "int32"), labels), "float32")


def row_weights(class_weight: Any, labels: Any) -> Any:
    """What each row (K, n) counts, by its class."""
    ops = load_keras().ops
    return ops.sum(ops.one_hot(labels, class_weight.shape[1]) * class_weight[:, None, :], axis=-1)


def penalty(shape: Shape, weights: Sequence[Any], rates: Rates) -> Any:
    """What L2 adds to the loss, summed over all heads: as Keras's ``kernel_regularizer=L2(…)`` of the hidden layers."""
    ops = load_keras().ops
    return sum(ops.sum(rates.l2 * ops.square(weights[i])) for i in shape.kept_small)


def within_norm(shape: Shape, weights: Sequence[Any], rates: Rates) -> list[Any]:
    """Weights in which those that lead to a hidden unit have no more than each head's norm; longer ones are shortened to it.

    N. Srivastava et al., "Dropout", J. Mach. Learn. Res. 15 (2014) 1929, section 5.1; as Keras's ``kernel_constraint=MaxNorm(…)``.
    """
    ops = load_keras().ops
    found = list(weights)
    for i in shape.kept_small:
        norm = ops.sqrt(ops.sum(ops.square(found[i]), axis=1, keepdims=True))
        found[i] = found[i] * ops.where(norm > rates.max_norm, rates.max_norm / ops.maximum(norm, EPSILON), 1.0)
    return found
