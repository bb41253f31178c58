"""Padded: arrays in Triton's shapes, every dimension a power of two, and what moves their entries.

An array of a shape is kept in the next shape of powers of two, and what lies beyond the shape is
undefined: it may be NaN. So whatever reduces a dimension that is padded masks it first.
"""

import math
from typing import Any

import jax.numpy as jnp
from jax import lax

from miras.array_typing import Array

Shape = tuple[int, ...]

# Entries of an intermediate array up to which a selection is a masked sum; beyond, a product.
# Chosen on 2026-11-21 when the first presets compiled for an H200; not tuned since.
SMALL = 8192
LEAST = 16  # of every dimension of a product of matrices


def padded(shape: Shape) -> Shape:
    """The next powers of two."""
    return tuple(1 << (n - 1).bit_length() if n else 0 for n in shape)


def masked(x: Array, shape: Shape, axes: tuple[int, ...] | None = None, value: Any = 0) -> Array:
    """With a value wherever x lies beyond the shape, along some axes or all."""
    for axis in range(x.ndim) if axes is None else axes:
        if x.shape[axis] != shape[axis]:
            x = jnp.where(_index(x.shape, axis) < shape[axis], x, jnp.asarray(value, x.dtype))
    return x


def grown(x: Array, axis: int, size: int) -> Array:
    """Longer along an axis, by copies of itself: all after the first is undefined."""
    if x.shape[axis] == size:
        return x
    before, own, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    copies = x.reshape(*before, 1, own, *after)
    copies = jnp.broadcast_to(copies, (*before, size // own, own, *after))
    return copies.reshape(*before, size, *after)


def part(x: Array, axis: int, size: int, nth: int) -> Array:
    """The n-th run of `size` entries along an axis, `size` a power of two."""
    if x.shape[axis] == size:
        return x
    before, own, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    runs = x.reshape(*before, own // size, size, *after)
    here = _index(runs.shape, axis) == nth
    return jnp.sum(jnp.where(here, runs, jnp.zeros_like(runs)), axis=axis)


def moved(
    x: Array, axis: int, have: int, size: int, *, first: int = 0, every: int = 1, gap: int = 1
) -> Array:
    """Entry j at i where first + every * i = gap * j, zeros at other i.

    Args:
        x: padded.
        axis: along which entries move.
        have: entries of x that are defined.
        size: entries of the result, a power of two.
        first: for a slice where it begins; for padding, less by how much is put before.
        every: a slice's stride.
        gap: 1 and the zeros between two entries.
    """
    own = x.shape[axis]
    if every == gap == 1:
        if size <= own and first >= 0 and first % size == 0 and first + size <= have:
            return part(x, axis, size, first // size)
        if size >= own and first <= 0 and first % own == 0:
            x = grown(masked(x, _with(x.shape, axis, have), (axis,)), axis, size)
            at = _index(x.shape, axis) + first
            return jnp.where((at >= 0) & (at < own), x, jnp.zeros_like(x))
    i = lax.broadcasted_iota(jnp.int32, (size, own), 0)
    j = lax.broadcasted_iota(jnp.int32, (size, own), 1)
    chosen = (first + every * i == gap * j) & (j < have)
    x = masked(x, _with(x.shape, axis, have), (axis,))
    return along(chosen, x, axis)


def along(chosen: Array, x: Array, axis: int) -> Array:
    """The entries of x along an axis that a table [new, old] chooses, none or one for each new."""
    if x.dtype == jnp.bool_ or jnp.issubdtype(x.dtype, jnp.integer):
        return along(chosen, x.astype(jnp.float32), axis).astype(x.dtype)
    if x.ndim == 1:
        return jnp.sum(jnp.where(chosen, x[None, :], jnp.zeros((), x.dtype)), axis=1)
    if chosen.size * x.size // x.shape[axis] <= SMALL:
        spread = chosen.reshape(*chosen.shape, *[1] * (x.ndim - 1))
        front = jnp.moveaxis(x, axis, 0)[None]
        got = jnp.sum(jnp.where(spread, front, jnp.zeros((), x.dtype)), axis=1)
        return jnp.moveaxis(got, 0, axis)
    order = (axis, *(a for a in range(x.ndim) if a != axis))
    front = jnp.transpose(x, order)
    rows = front.reshape(front.shape[0], math.prod(front.shape[1:]))
    got = matmul(chosen.astype(x.dtype), rows, precision=lax.Precision.HIGHEST)
    got = got.reshape(got.shape[0], *front.shape[1:])
    return jnp.transpose(got, tuple(order.index(a) for a in range(x.ndim)))


def matmul(x: Array, y: Array, over: tuple[int, int] = (1, 0), **options) -> Array:
    """Of two matrices, with nothing but zeros beyond their shapes where it is summed over."""
    free = (1 - over[0], 1 - over[1])
    sums = x.shape[over[0]]
    if min(x.shape[free[0]], y.shape[free[1]], sums) == 1:
        x = x if over[0] == 1 else jnp.transpose(x)
        y = y if over[1] == 0 else jnp.transpose(y)
        return x * y if sums == 1 else jnp.sum(x[:, :, None] * y[None, :, :], axis=1)
    rows, columns = x.shape[free[0]], y.shape[free[1]]
    for axis in (0, 1):
        x, y = _filled(x, axis, axis == over[0]), _filled(y, axis, axis == over[1])
    z = lax.dot_general(x, y, (((over[0],), (over[1],)), ((), ())), **options)
    return part(part(z, 0, rows, 0), 1, columns, 0)


def _filled(x: Array, axis: int, summed: bool) -> Array:
    """At least 16 long, with zeros at the end of a dimension that is summed over."""
    own = x.shape[axis]
    if own >= LEAST:
        return x
    x = grown(x, axis, LEAST)
    return masked(x, _with(x.shape, axis, own), (axis,)) if summed else x


def _with(shape: Shape, axis: int, size: int) -> Shape:
    return (*shape[:axis], size, *shape[axis + 1 :])


def _index(shape: Shape, axis: int) -> Array:
    return lax.broadcasted_iota(jnp.int32, shape, axis)
