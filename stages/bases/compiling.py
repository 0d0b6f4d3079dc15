"""Compiling and differentiating a function, on whichever backend Keras runs: what ``keras.ops`` leaves to the backends."""

from collections.abc import Callable, Sequence
from typing import Any

from stages.bases.backend import load_keras


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` of tensors, compiled by XLA for each set of shapes; PyTorch runs it as it is."""
    name = load_keras().backend.backend()
    if name == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True, autograph=False)  # type: ignore[no-any-return]
    if name == "jax":
        import jax

        return jax.jit(function)  # type: ignore[no-any-return]
    return function


def gradients(function: Callable[[Sequence[Any]], tuple[Any, Any]], at: Sequence[Any]) -> tuple[Any, list[Any]]:
    """``function(at)`` gives a scalar and something else: that, and the gradients of the scalar with respect to ``at``."""
    name = load_keras().backend.backend()
    if name == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(at)
            value, aside = function(at)
        return aside, tape.gradient(value, at)
    if name == "jax":
        import jax

        (_, aside), found = jax.value_and_grad(function, has_aux=True)(list(at))
        return aside, found
    import torch

    leaves = [each.detach().requires_grad_() for each in at]
    value, aside = function(leaves)
    found = list(torch.autograd.grad(value, leaves))
    return load_keras().tree.map_structure(lambda each: each.detach(), aside), found
