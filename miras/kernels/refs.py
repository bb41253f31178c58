"""Refs: how values lie in a kernel's memory, and how they are read and written there.

Blocks have two dimensions at least: a vector [N] is a row [1, N]. A weight of more rows than
columns, and fewer columns than a register has lanes, lies transposed.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas import tpu as pltpu

from miras.kernels.forms import Forms, Matrix, leave
from miras.typing import Array

LANES = 128


def block(own: tuple[int, ...]) -> tuple[int, ...]:
    """A shape of at least two dimensions."""
    return (1,) * (2 - len(own)) + own


def vmem(shapes: Any, *lead: int) -> Any:
    """Scratch memory for arrays of these shapes."""
    return jax.tree.map(lambda s: pltpu.VMEM((*lead, *block(s.shape)), s.dtype), shapes)


def own(tree: Any, lead: int) -> Any:
    """The shapes of leaves without their first dimensions."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[lead:], x.dtype), tree)


def lying(tree: Any, lead: int) -> Any:
    """Weights [..., N, M] behind `lead` dimensions, or their shapes, as they lie."""

    def one(x: Any) -> Any:
        if not _tall(x.shape[lead:]):
            return x
        if isinstance(x, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct((*x.shape[:-2], x.shape[-1], x.shape[-2]), x.dtype)
        return x.swapaxes(-1, -2)

    return jax.tree.map(one, tree)


def like(arrays: Any, tree: Any) -> Any:
    """Arrays in the shapes of a tree's, whose weights may have lain transposed."""

    def one(x: Array, s: Any) -> Array:
        own = s.shape[-2:]
        if _tall(own) and x.shape[-2:] == own[::-1]:
            x = x.swapaxes(-1, -2)
        return x.reshape(s.shape)

    return jax.tree.map(one, arrays, tree)


def read(refs: Any, shapes: Any, *at: Any) -> Any:
    """Values of these shapes at an index of refs."""

    def one(ref: Any, s: Any) -> Any:
        x = ref[at]
        if x.shape != s.shape and _tall(s.shape):
            return Matrix(s.shape, Forms((None, x)))
        return x.reshape(s.shape)

    return jax.tree.map(one, refs, shapes)


def write(refs: Any, values: Any, *at: Any) -> None:
    """The inverse of `read`."""

    def one(ref: Any, value: Any) -> None:
        ref[at] = _as_it_lies(ref, value, at)

    jax.tree.map(one, refs, values)


def add(refs: Any, values: Any, *at: Any) -> None:
    """As `write`, to what is there."""

    def one(ref: Any, value: Any) -> None:
        ref[at] += _as_it_lies(ref, value, at)

    jax.tree.map(one, refs, values)


def copy(source: Any, target: Any, *at: Any) -> None:
    """From refs to refs of the same shapes, or to these at an index."""

    def one(a: Any, b: Any) -> None:
        b[at or ...] = a[...]

    jax.tree.map(one, source, target)


def clear(refs: Any) -> None:
    """Zeros."""

    def one(ref: Any) -> None:
        ref[...] = jnp.zeros(ref.shape, ref.dtype)

    jax.tree.map(one, refs)


def _as_it_lies(ref: Any, value: Any, at: tuple[Any, ...]) -> Array:
    shape = ref.shape[len(at) :]
    if value.shape != shape and _tall(value.shape):
        value = value.transpose if isinstance(value, Matrix) else value.T
    return leave(value).reshape(shape).astype(ref.dtype)


def _tall(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and shape[1] < LANES and shape[1] < shape[0]
