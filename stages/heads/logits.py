"""The logits of a Keras model that ends in probabilities."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from stages.bases.backend import load_keras


def activated_end(model: Any) -> tuple[Any, Callable[..., Any] | None]:
    """The last layer or operation of a model, nested ones looked into; and where it is a softmax or has one, or a sigmoid, the
    activation that leaves its logits as they are.
    """
    keras = load_keras()
    last = model
    while isinstance(last, keras.Model):
        # Of operations that are no layers, a functional model alone can have the last.
        last = (last.layers if isinstance(last, keras.Sequential) else last.operations)[-1]
    softmax = isinstance(last, keras.layers.Softmax) and last.axis == -1
    activated = getattr(last, "activation", None) in (keras.activations.softmax, keras.activations.sigmoid)
    return last, keras.activations.linear if softmax or activated else None


@contextmanager
def without_activation(model: Any) -> Iterator[bool]:
    """While it is open, a model gives what its last softmax or sigmoid takes, wherever it has that: in a layer of its own or in a nested
    model. Says whether it has one.
    """
    last, plain = activated_end(model)
    if plain is None:
        yield False
        return
    name, before, after = "activation", getattr(last, "activation", None), plain
    if isinstance(last, load_keras().layers.Softmax):
        name, before, after = "call", None, lambda inputs, mask=None: inputs
    setattr(last, name, after)
    try:
        yield True
    finally:
        setattr(last, name, before) if before else delattr(last, name)
