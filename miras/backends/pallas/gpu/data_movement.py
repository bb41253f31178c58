"""Triton's lowerings of what moves entries of padded arrays: slices, padding, indexing.

See `lowerings` for their inputs and results.
"""

import functools
import math

import jax.numpy as jnp
from jax import lax
from jax.extend.core import JaxprEqn, Literal

from miras.array_typing import Array
from miras.backends.pallas.gpu import padded as p
from miras.backends.pallas.gpu.triton import TRITON, in_shapes, padded_result
from miras.backends.pallas.trace.jaxprs import Evaluate
from miras.backends.pallas.trace.primitives import named
from miras.backends.pallas.trace.shared_lowerings import (
    adds_to_columns,
    gathers_columns,
    slices_one_entry,
)


def entry(x: Array, at: Array, axis: int = 0) -> Array:
    """x[at] along an axis, for an index that is known only when the kernel runs."""
    here = lax.broadcasted_iota(jnp.int32, x.shape, axis) == at
    kept = jnp.where(here, x, jnp.zeros_like(x))
    if x.dtype == jnp.bool_:
        return jnp.max(kept.astype(jnp.int32), axis=axis, keepdims=True) > 0
    return jnp.sum(kept, axis=axis, keepdims=True)


@TRITON.register(lax.slice_p)
def slice_(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """A slice."""
    del evaluate
    (x,), (shape,), new = inputs, in_shapes(eqn), eqn.outvars[0].aval.shape  # pyright: ignore
    strides = eqn.params["strides"] or (1,) * x.ndim
    for axis, (first, every) in enumerate(zip(eqn.params["start_indices"], strides)):
        if new[axis] != shape[axis]:
            size = p.padded((new[axis],))[0]
            x = p.moved(x, axis, shape[axis], size, first=first, every=every)
    return [x]


@TRITON.register(lax.pad_p)
def pad(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """Entries moved, and the value where there are none; a slice where padding is negative."""
    del evaluate
    (x, value), (shape, _), size = inputs, in_shapes(eqn), padded_result(eqn)
    config = eqn.params["padding_config"]
    zero = _is_zero(eqn.invars[1])
    for axis, (low, high, interior) in enumerate(config):
        if (low, high, interior) == (0, 0, 0):
            continue
        x = p.moved(x, axis, shape[axis], size[axis], first=-low, gap=interior + 1)
        if not zero:
            at = lax.broadcasted_iota(jnp.int32, x.shape, axis) - low
            own = (at >= 0) & (at < shape[axis] * (interior + 1)) & (at % (interior + 1) == 0)
            x = jnp.where(own, x, value)
    return [x]


def _is_zero(atom) -> bool:
    return isinstance(atom, Literal) and atom.val == 0


@TRITON.register(lax.concatenate_p)
def concatenate(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """The sum of the parts, each moved to its place."""
    del evaluate
    axis, size, first, placed = eqn.params["dimension"], padded_result(eqn), 0, []
    for x, shape in zip(inputs, in_shapes(eqn)):
        placed.append(p.moved(x, axis, shape[axis], size[axis], first=-first))
        first += shape[axis]
    return [functools.reduce(jnp.add, placed)]


@TRITON.register(*named("stack"))
def stack(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """The parts along a new axis, each at its place of zeros."""
    del evaluate
    axis, shape = eqn.params["axis"], padded_result(eqn)
    index = lax.broadcasted_iota(jnp.int32, shape, axis)
    total = jnp.broadcast_to(jnp.expand_dims(inputs[0], axis), shape)
    for i, x in enumerate(inputs[1:], 1):
        total = jnp.where(index == i, jnp.expand_dims(x, axis), total)
    return [total]


@TRITON.register(*named("unstack"))
def unstack(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """Each entry along an axis."""
    del evaluate
    axis, parts = eqn.params["axis"], len(eqn.outvars)
    entries = [p.part(inputs[0], axis, 1, i) for i in range(parts)]
    return [x.reshape(padded_result(eqn)) for x in entries]


@TRITON.register(lax.split_p)
def split(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """Each part as a slice."""
    del evaluate
    axis, first, parts = eqn.params["axis"], 0, []
    for n in eqn.params["sizes"]:
        size = p.padded((n,))[0]
        parts.append(p.moved(inputs[0], axis, in_shapes(eqn)[0][axis], size, first=first))
        first += n
    return parts


@TRITON.register(lax.dynamic_slice_p, supports=slices_one_entry)
def dynamic_slice(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """x[t] for a t that is known only when it runs, as a masked sum."""
    del evaluate
    x, *at = inputs
    for axis, (start, size) in enumerate(zip(at, eqn.params["slice_sizes"])):
        if size != in_shapes(eqn)[0][axis]:
            x = entry(x, start, axis)
    return [x]


@TRITON.register(lax.gather_p, supports=gathers_columns)
def gather(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """x[:, index]."""
    del evaluate
    x, index = inputs
    x = p.masked(x, in_shapes(eqn)[0], (1,))
    return [p.along(_chosen(index, x.shape[1]), x, 1)]


@TRITON.register(lax.scatter_add_p, supports=adds_to_columns)
def scatter_add(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """x.at[:, index].add(y), the derivative of `gather`."""
    del evaluate
    x, index, y = inputs
    y = p.masked(y, in_shapes(eqn)[2], (1,))
    chosen = _chosen(index, x.shape[1]).astype(x.dtype)
    return [x + p.matmul(y, chosen, precision=lax.Precision.HIGHEST)]


def _chosen(index: Array, size: int) -> Array:
    index = index.reshape(math.prod(index.shape), 1)
    return index == lax.broadcasted_iota(jnp.int32, (index.shape[0], size), 1)
