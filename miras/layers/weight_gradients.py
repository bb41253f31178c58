"""The dtype in which the gradients of weights are summed over devices.

The gradient of the kernel W of y = x W is x^T dy, a sum over tokens. Where devices have different
tokens, XLA's partitioner computes each device's part of the sum and then sums the parts over
devices in the dtype of the product. A cast after the product would come too late: the product
itself is computed in that dtype here. By default it is the dtype of x.

Weights that are added to tokens, or multiply them channel by channel, are few: `spread` sums their
gradients in float32.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(x: Array, kernel: Array, dtype: str) -> Array:
    """x [..., in] @ kernel [in, *out], in the dtype of x, with the kernel's gradient in `dtype`.

    It has no forward-mode derivative.
    """
    del dtype
    return jnp.tensordot(x, kernel.astype(x.dtype), axes=1)


def _forward(x: Array, kernel: Array, dtype: str):
    return product(x, kernel, dtype), (x, kernel)


def _backward(dtype: str, kept: tuple[Array, Array], dy: Array):
    x, kernel = kept
    out = kernel.ndim - 1
    dx = jnp.tensordot(dy, jnp.moveaxis(kernel.astype(x.dtype), 0, -1), axes=out)
    tokens = tuple(range(x.ndim - 1))
    dkernel = jax.lax.dot_general(
        x, dy, ((tokens, tokens), ((), ())), preferred_element_type=jnp.dtype(dtype)
    )
    return dx, dkernel.astype(kernel.dtype)


product.defvjp(_forward, _backward)


def spread(weight: Array, x: Array) -> Array:
    """A weight for each token: broadcast to x, in its dtype, with a gradient summed in float32.

    JAX sums the gradient of a broadcast in its dtype, so the cast to that of x comes after it.

    Args:
        weight: [*shape]; axes of size 1 of weight and x broadcast.
        x: tokens [..., *shape], float.
    """
    wide = jnp.promote_types(jnp.promote_types(jnp.float32, x.dtype), weight.dtype)
    shape = jnp.broadcast_shapes(weight.shape, x.shape)
    return jnp.broadcast_to(weight.astype(wide), shape).astype(x.dtype)


def summed_in(graphdef: nnx.GraphDef, params: nnx.State, dtype: str) -> nnx.GraphDef:
    """The structure of a model whose linear maps sum their gradients in `dtype`.

    Args:
        graphdef: the model's structure.
        params: its parameters, or their shapes.
        dtype: "float32" or "bfloat16".
    """
    model = nnx.merge(graphdef, params)
    modules: Any = nnx.iter_modules(model)
    for _, module in modules:
        if hasattr(module, "gradient_dtype"):
            module.gradient_dtype = dtype
    return nnx.split(model, nnx.Param)[0]
