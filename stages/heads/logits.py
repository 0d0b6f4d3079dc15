"""The logits of a Keras model that ends in probabilities."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stages.bases.backend import load_keras


@contextmanager
def without_activation(model: Any) -> Iterator[bool]:
    """While it is open, a model gives what its last softmax or sigmoid takes, wherever it has that: in a layer of its own or in a nested
    model. Says whether it has one.
    """
    keras = load_keras()
    last = model
    while isinstance(last, keras.Model):
        # Of operations that are no layers, a functional model alone can have the last.
        last = (last.layers if isinstance(last, keras.Sequential) else last.operations)[-1]
    activation = getattr(last, "activation", None)
    if isinstance(last, keras.layers.Softmax) and last.axis == -1:
        name, before, after = "call", None, lambda inputs, mask=None: inputs
    elif activation in (keras.activations.softmax, keras.activations.sigmoid):
        name, before, after = "activation", activation, keras.activations.linear
    else:
        yield False
        return
    setattr(last, name, after)
    try:
        yield True
    finally:
        setattr(last, name, before) if before else delattr(last, name)
