"""The hidden dimension of a deep memory, and its operations in blocks of it.

The hidden dimension is known by its size. What an operation does to a block is what it does to the
whole, but for a shape among its parameters; a sum over it is the sum over its blocks.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import JaxprEqn, Primitive

from miras.array_typing import Array
from miras.backends.pallas.trace.jaxprs import in_avals, out_avals
from miras.backends.pallas.trace.lowerings import Lowerings


class HiddenBlocks(NamedTuple):
    """The blocks into which the hidden dimension is split.

    Attributes:
        count: its size; dimensions of this size are the hidden one.
        block: the size of a block, a divisor.
    """

    count: int
    block: int

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return self.count // self.block

    def axis(self, shape: Sequence[int]) -> int | None:
        """Which dimension is the hidden one, if any."""
        return shape.index(self.count) if self.count in shape else None

    def block_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of one block."""
        return tuple(self.block if n == self.count else n for n in shape)

    def split(self, x: Any, lead: int) -> Any:
        """An array, or its shape, with the number of the block after `lead` dimensions."""
        own = x.shape[lead:]
        axis = self.axis(own)
        if axis is None:
            return x
        if isinstance(x, jax.ShapeDtypeStruct):
            shape = (*x.shape[:lead], self.blocks, *self.block_shape(own))
            return jax.ShapeDtypeStruct(shape, x.dtype)
        at = lead + axis
        x = x.reshape(*x.shape[:at], self.blocks, self.block, *x.shape[at + 1 :])
        return jnp.moveaxis(x, at, lead)

    def merge(self, x: Array, lead: int, shape: Sequence[int]) -> Array:
        """The inverse, for arrays of this shape after the `lead` dimensions."""
        axis = self.axis(shape)
        if axis is None:
            return x
        return jnp.moveaxis(x, lead, lead + axis).reshape(*x.shape[:lead], *shape)


def split(tree: Any, blocks: HiddenBlocks | None, lead: int) -> Any:
    """A tree's arrays, or their shapes, with the hidden dimension in blocks."""
    return tree if blocks is None else jax.tree.map(lambda x: blocks.split(x, lead), tree)


def merge(tree: Any, blocks: HiddenBlocks | None, shapes: Any, lead: int) -> Any:
    """The inverse, for a tree of shapes after the `lead` dimensions."""
    if blocks is None:
        return tree
    return jax.tree.map(lambda x, s: blocks.merge(x, lead, s.shape), tree, shapes)


def is_hidden(atom: Any, blocks: HiddenBlocks | None) -> bool:
    """Whether a variable has the hidden dimension."""
    return blocks is not None and blocks.axis(atom.aval.shape) is not None


def reduces_hidden(eqn: JaxprEqn, blocks: HiddenBlocks | None) -> bool:
    """Whether the hidden dimension goes into an equation and does not come out."""
    into, out = (any(is_hidden(x, blocks) for x in atoms) for atoms in (eqn.invars, eqn.outvars))
    return into and not out


class Accumulator(NamedTuple):
    """How the results of blocks are reduced to one.

    Attributes:
        start: its value before the first block.
        combine: its value so far and a block's result.
    """

    start: float
    combine: Callable[[Array, Array], Array]


ACCUMULATORS: dict[Primitive, Accumulator] = {
    lax.dot_general_p: Accumulator(0, jnp.add),
    lax.reduce_sum_p: Accumulator(0, jnp.add),
    lax.reduce_max_p: Accumulator(-jnp.inf, jnp.maximum),
    lax.reduce_min_p: Accumulator(jnp.inf, jnp.minimum),
}


class BlockContext(NamedTuple):
    """Block i, which a rule of `OF_BLOCK` computes.

    Attributes:
        blocks: all of them.
        index: i, a scalar that is known when the kernel runs.
    """

    blocks: HiddenBlocks
    index: Any

    def shape(self, eqn: JaxprEqn) -> tuple[int, ...]:
        """The shape of an equation's result."""
        return self.blocks.block_shape(out_avals(eqn)[0].shape)


# Results of block i, from inputs whose hidden dimension is that of the block. Operations without a
# rule are the same for a block and have no shape among their parameters.
OF_BLOCK = Lowerings("block")
OF_BLOCK.native(lax.transpose_p, *ACCUMULATORS)


@OF_BLOCK.register(lax.broadcast_in_dim_p)
def _broadcast(eqn: JaxprEqn, inputs: Any, block: BlockContext):
    axes = eqn.params["broadcast_dimensions"]
    return [lax.broadcast_in_dim(inputs[0], block.shape(eqn), axes)]


@OF_BLOCK.register(lax.reshape_p, lax.squeeze_p)
def _reshape(eqn: JaxprEqn, inputs: Any, block: BlockContext):
    return [lax.reshape(inputs[0], block.shape(eqn))]


@OF_BLOCK.register(lax.iota_p)
def _iota(eqn: JaxprEqn, inputs: Any, block: BlockContext):
    del inputs
    axis = eqn.params["dimension"]
    index = lax.broadcasted_iota(jnp.int32, block.shape(eqn), axis)
    if axis == block.blocks.axis(out_avals(eqn)[0].shape):
        index = index + block.index * block.blocks.block
    return [index.astype(eqn.params["dtype"])]


def unsplittable(
    eqn: JaxprEqn, blocks: HiddenBlocks, elementwise: Callable[[JaxprEqn], bool]
) -> str | None:
    """Why an equation cannot be computed block by block; None if it can.

    Args:
        eqn: the equation.
        blocks: of the hidden dimension.
        elementwise: whether an equation's operation is elementwise.
    """
    into, out = ([aval.shape for aval in avals] for avals in (in_avals(eqn), out_avals(eqn)))
    counts = [shape.count(blocks.count) for shape in (*into, *out)]
    if not any(counts):
        return None
    primitive, params = eqn.primitive, eqn.params
    known = elementwise(eqn) or OF_BLOCK.get(eqn) is not None
    if primitive is lax.dot_general_p:
        over, batch = params["dimension_numbers"]
        summed = [blocks.axis(shape) in axes for shape, axes in zip(into, over)]
        known = not batch[0] and summed[0] == summed[1]
    elif primitive in (lax.reshape_p, lax.squeeze_p):  # what precedes the dimension must stay there
        known = all(counts) and _before(into[0], blocks) == _before(out[0], blocks)
    elif primitive in (lax.reduce_max_p, lax.reduce_min_p):
        known = jnp.issubdtype(in_avals(eqn)[0].dtype, jnp.floating)
    if known and max(counts) == 1:
        return None
    return f"{primitive.name!r} cannot be had in blocks of its {blocks.count} hidden units"


def _before(shape: tuple[int, ...], blocks: HiddenBlocks) -> int:
    return math.prod(shape[: blocks.axis(shape)])
