"""How much each place of an image speaks for a class, by what the head makes of the features there.

The evidence for a class is its logit less the mean of the others' (of two classes: the logit of the first against the second). It is the
same whatever constant a softmax leaves open, and follows from log-probabilities, so that every kind of head has it.

- A head that is linear in its features: the evidence is a sum over places, and a constant. B. Zhou et al., "Learning Deep Features for
  Discriminative Localization", CVPR 2016, for averages over places; for other poolings, the weights of each place count there.
- Any other Keras head: Grad-CAM, R. Selvaraju et al., ICCV 2017: each channel weighs what the gradient of the evidence with respect to it
  is, averaged over places. The gradient is that of the head alone, with respect to the features that the cache has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import HeadError
from stages.bases import backend
from stages.explain.linear import linear
from stages.heads.calibration import EPSILON, log_softmax
from stages.heads.head import Head, KerasModelHead
from stages.heads.logits import without_activation
from stages.heads.pooling import L2, LEAST, joined, pool_features
from stages.heads.tuned import TunedHead
from stages.heads.tuned_spec import ON_IMAGES

EXACT, GRADIENT = "exact", "Grad-CAM"
OTHERWISE = "take another head with --head, or --occlusion, which any head can be asked"


@dataclass(frozen=True)
class Evidence:
    """What speaks for a class, by layer: ``places`` (rows, columns) float64 of each, and by which ``method``.

    Where that is exact, the places and ``rest`` add up to the evidence for the class.
    """

    places: Mapping[str, NDArray[np.float64]]
    method: str
    rest: float = 0.0


def evidence_of(logs: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """The evidence (n,) for class ``k`` in log-probabilities or logits (n, classes)."""
    others = np.delete(logs, k, axis=1)
    found: NDArray[np.float64] = logs[:, k] - others.mean(axis=1)
    return found


def evidence(head: Head, features: Mapping[str, NDArray[np.float32]], k: int) -> Evidence:
    """What speaks for class ``k`` in the features (…,) of one image, of each layer that the head takes, in the head's order.

    Raises HeadError for a head that is neither linear nor a Keras model, and for features that have no places.
    """
    if not any(each.ndim == 3 for each in features.values()):
        raise HeadError(
            f"the features at {', '.join(features)} have no places ({', '.join(str(each.shape) for each in features.values())}), so they "
            f'do not say where something is; name an earlier layer (of a transformer, output = "patches"), or {OTHERWISE}'
        )
    if isinstance(head, TunedHead) or head.spec.pool == "none":
        return _of_maps(head, features, k)
    pooled = joined(
        [pool_features(each[None], head.spec.pool.removesuffix(L2)) for each in features.values()], head.spec.pool
    )
    if found := linear(head, pooled):
        weights, rest = evidence_of(found[0], k), float(evidence_of(found[1][None], k)[0])
        slopes = _unpooled(weights, features, head.spec.pool, exact=True)
        spoken = {layer: (slope * features[layer]).sum(axis=-1) for layer, slope in slopes.items()}
        # A layer without places adds one number, such as an average that the base has made itself.
        rest += sum(float(each.sum()) for each in spoken.values() if each.ndim != 2)
        return Evidence({layer: each for layer, each in spoken.items() if each.ndim == 2}, EXACT, rest)
    slope = _gradient(_core(head), pooled, k)[0].astype(np.float64)
    slopes = _unpooled(slope, features, head.spec.pool, exact=False)
    return Evidence(
        {layer: _grad_cam(each, features[layer]) for layer, each in slopes.items() if each.ndim == 3}, GRADIENT
    )


def _of_maps(head: Head, features: Mapping[str, NDArray[np.float32]], k: int) -> Evidence:
    """Of a head that takes the features of one layer as they are, or an image: then the last feature maps in it are what it looks at."""
    ((layer, maps),) = features.items()
    model = _core(head)
    if isinstance(head.spec, ON_IMAGES):
        keras = backend.load_keras()
        layer, last = [
            (each.name, out)
            for each in model.operations
            for out in _given(each, model)
            if len(out.shape) == 4 and out.shape[1] > 1
        ][-1]
        maps = np.asarray(keras.ops.convert_to_numpy(keras.Model(model.input, last)(maps[None].astype(np.float32))))[0]
        model = keras.Model(last, model.output)
    return Evidence({layer: _grad_cam(_gradient(model, maps[None], k)[0], maps)}, GRADIENT)


def _given(operation: Any, model: Any) -> list[Any]:
    """What an operation gives in this model. A base that is one of its operations has an output of its own, too, outside of it."""
    nodes = {id(node) for some in model._nodes_by_depth.values() for node in some}
    return [out for node in operation._inbound_nodes if id(node) in nodes for out in node.output_tensors]


def _grad_cam(slope: NDArray[Any], maps: NDArray[np.float32]) -> NDArray[np.float64]:
    weights = slope.astype(np.float64).mean(axis=(0, 1))
    found: NDArray[np.float64] = np.maximum(maps.astype(np.float64) @ weights, 0)
    return found


def _core(head: Head) -> Any:
    """The Keras model of a head. Raises HeadError where it has none."""
    if not isinstance(head, KerasModelHead):
        raise HeadError(
            f"{head.spec.estimator} is neither linear nor a Keras model, so that it does not say where it looks; {OTHERWISE}"
        )
    return head._core


def _unpooled(
    weights: NDArray[np.float64], features: Mapping[str, NDArray[np.float32]], pool: str, exact: bool
) -> dict[str, NDArray[np.float64]]:
    """The slope (…,) at each number of each layer's features, from that at the pooled ones (d,)."""
    kind = pool.removesuffix(L2)
    if pool.endswith(L2):
        row = joined([pool_features(each[None], kind) for each in features.values()], kind)[0].astype(np.float64)  # type: ignore[arg-type]
        length = max(float(np.linalg.norm(row)), LEAST)
        # The whole is divided by its length, which is a number like others where contributions are told, and changes in a gradient.
        weights = weights / length if exact else (weights - row * (row @ weights) / length**2) / length
    slopes, start = {}, 0
    for layer, each in features.items():
        width = each.size if each.ndim == 1 or kind == "flatten" else each.shape[-1]
        part = weights[start : start + width]
        start += width
        if each.ndim == 1 or kind == "flatten":
            slopes[layer] = part.reshape(each.shape)
            continue
        places = each.reshape(-1, width)
        if kind == "avg":
            share = np.full(places.shape, 1 / len(places))
        else:
            # Each channel counts at the place of its maximum alone.
            share = np.zeros(places.shape)
            share[places.argmax(axis=0), np.arange(width)] = 1
        slopes[layer] = (share * part).reshape(each.shape)
    return slopes


def _gradient(model: Any, X: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """The gradient (1, …) of the evidence for class ``k`` in a Keras model's probabilities with respect to what it takes of one image."""
    ops = backend.load_keras().ops
    X = X.reshape(1, *model.input_shape[1:])
    p = ops.convert_to_numpy(model(X, training=False))

    def value(at: Sequence[Any], logits: bool) -> tuple[Any, Any]:
        out = model(at[0], training=False)
        if out.shape[-1] == 1:  # the second of two classes
            out = ops.concatenate([0 * out, out] if logits else [1 - out, out], axis=-1)
        z = (out if logits else ops.log(ops.maximum(out, EPSILON)))[0]
        return z[k] - (ops.sum(z) - z[k]) / (z.shape[0] - 1), out

    with without_activation(model) as has_logits:
        # A layer that the model has in two places is not its end alone.
        z = ops.convert_to_numpy(model(X, training=False))
        after = np.exp(log_softmax(z))[:, -p.shape[1] :]
        if has_logits and np.allclose(after, p, atol=1e-4):
            _, (found,) = backend.gradients(partial(value, logits=True), [ops.convert_to_tensor(X)])
            return np.asarray(ops.convert_to_numpy(found), np.float32)
    _, (found,) = backend.gradients(partial(value, logits=False), [ops.convert_to_tensor(X)])
    return np.asarray(ops.convert_to_numpy(found), np.float32)
