"""Units: the hidden units of a deep memory, and its operations in blocks of them.

Units are a dimension by its size. What an operation does to a block of them is what it does to all,
but for a shape among its parameters; a sum over units is the sum of what blocks give.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import JaxprEqn

from miras.array_typing import Array
from miras.backends.pallas.trace.program import bind, inputs_of, results_of


class Units(NamedTuple):
    """How hidden units are taken apart.

    Attributes:
        count: how many there are; the dimensions of this size are the units.
        block: how many at once, a divisor.
    """

    count: int
    block: int

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return self.count // self.block

    def axis(self, shape: Sequence[int]) -> int | None:
        """Which dimension the units are, if any."""
        return shape.index(self.count) if self.count in shape else None

    def of_block(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of one block."""
        return tuple(self.block if n == self.count else n for n in shape)

    def apart(self, x: Any, lead: int) -> Any:
        """An array, or its shape, with the number of the block behind `lead` dimensions."""
        own = x.shape[lead:]
        axis = self.axis(own)
        if axis is None:
            return x
        if isinstance(x, jax.ShapeDtypeStruct):
            shape = (*x.shape[:lead], self.blocks, *self.of_block(own))
            return jax.ShapeDtypeStruct(shape, x.dtype)
        at = lead + axis
        x = x.reshape(*x.shape[:at], self.blocks, self.block, *x.shape[at + 1 :])
        return jnp.moveaxis(x, at, lead)

    def together(self, x: Array, lead: int, shape: Sequence[int]) -> Array:
        """The inverse, for arrays of this shape behind the `lead` dimensions."""
        axis = self.axis(shape)
        if axis is None:
            return x
        return jnp.moveaxis(x, lead, lead + axis).reshape(*x.shape[:lead], *shape)


def apart(tree: Any, units: Units | None, lead: int) -> Any:
    """A tree's arrays, or their shapes, with their units in blocks."""
    return tree if units is None else jax.tree.map(lambda x: units.apart(x, lead), tree)


def together(tree: Any, units: Units | None, shapes: Any, lead: int) -> Any:
    """The inverse, for a tree of shapes behind the `lead` dimensions."""
    if units is None:
        return tree
    return jax.tree.map(lambda x, s: units.together(x, lead, s.shape), tree, shapes)


class Part(NamedTuple):
    """How what blocks give is put together.

    Attributes:
        start: what no block has given yet.
        join: of what some have given, and one.
    """

    start: float
    join: Callable[[Array, Array], Array]


PARTS = {
    "dot_general": Part(0, jnp.add),
    "reduce_sum": Part(0, jnp.add),
    "reduce_max": Part(-jnp.inf, jnp.maximum),
    "reduce_min": Part(jnp.inf, jnp.minimum),
}


def has_units(atom: Any, units: Units | None) -> bool:
    """Whether a variable has units."""
    return units is not None and units.axis(atom.aval.shape) is not None


def sums(eqn: JaxprEqn, units: Units | None) -> bool:
    """Whether units go into an equation and none come out."""
    into, out = (any(has_units(x, units) for x in atoms) for atoms in (eqn.invars, eqn.outvars))
    return into and not out


def bind_block(eqn: JaxprEqn, inputs: Sequence[Any], units: Units, i: Any) -> Sequence[Any]:
    """Those of block i, from inputs of which those with units are its blocks."""
    form = _SHAPED.get(eqn.primitive.name)
    return bind(eqn, inputs) if form is None else [form(eqn, inputs, units, i)]


def refused(eqn: JaxprEqn, units: Units, entrywise: frozenset[str]) -> str | None:
    """Why an equation cannot be had in blocks, if so; some operations go entry by entry."""
    into, out = ([aval.shape for aval in avals] for avals in (inputs_of(eqn), results_of(eqn)))
    counts = [shape.count(units.count) for shape in (*into, *out)]
    if not any(counts):
        return None
    name, params = eqn.primitive.name, eqn.params
    known = name in entrywise or name in _SHAPED or name in PARTS or name == "transpose"
    if name == "dot_general":
        over, batch = params["dimension_numbers"]
        summed = [units.axis(shape) in axes for shape, axes in zip(into, over)]
        known = not batch[0] and summed[0] == summed[1]
    elif name in ("reshape", "squeeze"):  # what stands before the units must stay there
        known = all(counts) and _before(into[0], units) == _before(out[0], units)
    elif name in ("reduce_max", "reduce_min"):
        known = jnp.issubdtype(inputs_of(eqn)[0].dtype, jnp.floating)
    if known and max(counts) == 1:
        return None
    return f"{name!r} cannot be had in blocks of its {units.count} hidden units"


def _before(shape: tuple[int, ...], units: Units) -> int:
    return math.prod(shape[: units.axis(shape)])


def _shape(eqn: JaxprEqn, units: Units) -> tuple[int, ...]:
    return units.of_block(results_of(eqn)[0].shape)


def _broadcast(eqn: JaxprEqn, inputs: Any, units: Units, i: Any) -> Array:
    del i
    axes = eqn.params["broadcast_dimensions"]
    return lax.broadcast_in_dim(inputs[0], _shape(eqn, units), axes)


def _reshape(eqn: JaxprEqn, inputs: Any, units: Units, i: Any) -> Array:
    del i
    return lax.reshape(inputs[0], _shape(eqn, units))


def _iota(eqn: JaxprEqn, inputs: Any, units: Units, i: Any) -> Array:
    del inputs
    axis = eqn.params["dimension"]
    index = lax.broadcasted_iota(jnp.int32, _shape(eqn, units), axis)
    if axis == units.axis(results_of(eqn)[0].shape):
        index = index + i * units.block
    return index.astype(eqn.params["dtype"])


# Operations with a shape among their parameters.
_SHAPED = {
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _reshape,
    "iota": _iota,
}
