"""Blocks of a TPU kernel's memory: how values are stored in them, read and written.

Blocks have two dimensions at least: a vector [N] is a row [1, N]. A weight of more rows than
columns, and fewer columns than a register has lanes, is stored transposed.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas import tpu as pltpu

from miras.array_typing import Array
from miras.backends.pallas.target import LANES
from miras.backends.pallas.tpu.register_layouts import Layouts, RegisterMatrix, enter, leave


def block_shape(own: tuple[int, ...]) -> tuple[int, ...]:
    """A shape of at least two dimensions."""
    return (1,) * (2 - len(own)) + own


def block_shapes(shapes: Any) -> Any:
    """Shapes of values as those of the blocks that store them, if not transposed."""
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(block_shape(s.shape), s.dtype), shapes)


def vmem(shapes: Any, *lead: int) -> Any:
    """Scratch memory for arrays of these shapes."""
    return jax.tree.map(lambda s: pltpu.VMEM((*lead, *block_shape(s.shape)), s.dtype), shapes)


def to_stored(tree: Any, lead: int) -> Any:
    """Weights [..., N, M] after `lead` dimensions, or their shapes, transposed where tall."""

    def one(x: Any) -> Any:
        if not _tall(x.shape[lead:]):
            return x
        if isinstance(x, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct((*x.shape[:-2], x.shape[-1], x.shape[-2]), x.dtype)
        return x.swapaxes(-1, -2)

    return jax.tree.map(one, tree)


def from_stored(arrays: Any, shapes: Any) -> Any:
    """The inverse of `to_stored`: arrays in the shapes of a tree's."""

    def one(x: Array, s: Any) -> Array:
        own = s.shape[-2:]
        if _tall(own) and x.shape[-2:] == own[::-1]:
            x = x.swapaxes(-1, -2)
        return x.reshape(s.shape)

    return jax.tree.map(one, arrays, shapes)


def block_values(blocks: Any, shapes: Any) -> Any:
    """The values, of these shapes, that blocks store, by their layouts in registers."""

    def one(x: Array, s: Any) -> Any:
        if x.shape != s.shape and _tall(s.shape):
            return RegisterMatrix(s.shape, Layouts((None, x)))
        return enter(x if x.shape == s.shape else x.reshape(s.shape))

    return jax.tree.map(one, blocks, shapes)


def value_blocks(values: Any, shapes: Any) -> Any:
    """The inverse: values as blocks of these shapes store them."""

    def one(value: Any, s: Any) -> Array:
        if value.shape != s.shape and _tall(value.shape):
            value = value.transpose if isinstance(value, RegisterMatrix) else value.T
        return leave(value).reshape(s.shape).astype(s.dtype)

    return jax.tree.map(one, values, shapes)


def read(refs: Any, *at: Any) -> Any:
    """The blocks at an index of refs."""
    return jax.tree.map(lambda ref: ref[at or ...], refs)


def write(refs: Any, blocks: Any, *at: Any) -> None:
    """The inverse of `read`."""

    def one(ref: Any, block: Array) -> None:
        ref[at] = block

    jax.tree.map(one, refs, blocks)


def add(refs: Any, blocks: Any, *at: Any) -> None:
    """As `write`, to the blocks' present values."""

    def one(ref: Any, block: Array) -> None:
        ref[at] += block

    jax.tree.map(one, refs, blocks)


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


def _tall(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and shape[1] < LANES and shape[1] < shape[0]
