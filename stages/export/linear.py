"""Baselines as layers: classifiers of scikit-learn whose probabilities follow from weighted sums of features."""

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.errors import HeadError
from stages.heads.baselines import SklearnHead

# The softmax of sums, or of margins where there are no probabilities; the softmax with a floor; or each class against the others.
Ending = Literal["softmax", "floored", "one-vs-rest"]
# Of margins alone.
MARGINS = ("LinearSVC", "PassiveAggressiveClassifier", "Perceptron", "RidgeClassifier", "RidgeClassifierCV")
CAN_BE = ("LinearDiscriminantAnalysis", "LogisticRegression", "LogisticRegressionCV", "SGDClassifier", *MARGINS)
# Losses of SGDClassifier with probabilities that are no function of a sum as here.
OTHER_LOSSES = ("modified_huber",)

# Keras divides by 1e-7 at least. Where a deviation is less than this, the rest of the division is in the weights.
LEAST_DEVIATION = 1e-6


class Linear(NamedTuple):
    """Weights (features, outputs) and biases (outputs,) on pooled features, and how probabilities follow from the sums. Where there is
    a ``scaling`` (2, features), its first row is subtracted from features, and they are divided by its second.

    The scaling is not in the weights: those of features that hardly vary would be so large beside the others that in int8 nothing would
    be left of these.
    """

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    ending: Ending
    scaling: NDArray[np.float32] | None


def linear(head: SklearnHead) -> Linear:
    """A baseline as one layer behind its scaling. Raises HeadError for one that is not linear, which names those that are."""
    last = head._pipeline[-1]
    name = type(last).__name__
    loss = getattr(last, "loss", None) if name == "SGDClassifier" else None
    if name not in CAN_BE or loss in OTHER_LOSSES:
        what = f'{name} with loss "{loss}"' if loss else name
        raise HeadError(
            f"expected a head of layers, or a linear baseline ({', '.join(sorted(CAN_BE))}), found {what}, which has no form as layers"
        )
    if len(last.classes_) < len(head.classes_):
        lacking = sorted(set(range(len(head.classes_))) - set(map(int, last.classes_)))
        raise HeadError(f"expected training images of every class, found none of {head.classes_[lacking[0]]!r}")
    kernel, bias, scaling = head.weights()
    by = None
    if scaling is not None:
        mean, deviation = scaling
        least = np.maximum(deviation, LEAST_DEVIATION)
        kernel, by = kernel * (least / deviation)[:, None], np.stack([mean, least]).astype(np.float32)
    return Linear(kernel.astype(np.float32), bias.astype(np.float32), _ending(name, last), by)


def _ending(name: str, last: Any) -> Ending:
    if name == "LinearDiscriminantAnalysis":
        return "floored"
    if loss_with_probabilities(name, last):
        return "one-vs-rest"
    return "softmax"


def loss_with_probabilities(name: str, last: Any) -> bool:
    """Whether each class has a probability against all others."""
    return (name == "SGDClassifier" and last.loss == "log_loss") or getattr(last, "solver", None) == "liblinear"
