"""The order of the backward pass: the gradients of a layer's weights before what is below it.

The gradient of a kernel needs the layer's activations. Nothing waits for it, so that XLA's
scheduler may compute it long after the gradient of the layer's input, and keep the activations
while the layers below run backward.
"""

from typing import Any, TypeVar

import jax

from miras.array_typing import Array

W = TypeVar("W")


@jax.custom_vjp
def before_those_below(weights: W, x: Array) -> tuple[W, Array]:
    """The weights and the input of a layer, whose gradients are computed together.

    In the backward pass, the gradient of x is there when those of the weights are.

    Args:
        weights: a pytree of arrays, which the layer is to take from the result.
        x: the layer's input, likewise.
    """
    return weights, x


def _forward(weights: Any, x: Array):
    return (weights, x), None


def _backward(_: None, cotangents: Any):
    return jax.lax.optimization_barrier(cotangents)


before_those_below.defvjp(_forward, _backward)
