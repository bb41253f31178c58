"""Heads: the grid of a GPU kernel, which part of each array a head sees, and how it is read."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from miras.array_typing import Array
from miras.backends.pallas.gpu.padded import padded
from miras.backends.pallas.interpreter import interpreting
from miras.backends.pallas.trace.operands import Flags, own
from miras.engine.devices import varying_alike


class Placed(NamedTuple):
    """A tree of padded arrays or their shapes, their blocks, and their shapes before padding."""

    arrays: Any
    specs: Any
    shapes: Any


class Heads:
    """The grid (rows x heads).

    Args:
        sizes: tiles N, rows B and heads H.
    """

    def __init__(self, sizes: tuple[int, ...]):
        self.tiles, self.rows, self.heads = sizes

    def whole(self, tree: Any) -> Placed:
        """Arrays that every program sees whole."""
        return self._place(tree, 0, lambda g: ())

    def by_head(self, tree: Any) -> Placed:
        """Arrays [H, ...]."""
        return self._place(tree, 1, lambda g: (g % self.heads,))

    def by_row(self, tree: Any) -> Placed:
        """Arrays [B, H, ...]."""
        return self._place(tree, 2, lambda g: (g // self.heads, g % self.heads))

    def by_tile(self, tree: Any) -> Placed:
        """Arrays [N, B, H, ...], all of a head's tiles."""
        return self._place(tree, 3, lambda g: (0, g // self.heads, g % self.heads), seen=1)

    def flags(self, flags: Flags) -> Placed:
        """Flags [N, B], as numbers."""
        numbers = jax.tree.map(lambda x: x.astype(jnp.int32), flags)
        return self._place(numbers, 2, lambda g: (0, g // self.heads), seen=1)

    def call(
        self,
        kernel: Callable[[dict, dict], None],
        name: str,
        warps: int,
        inputs: dict[str, Placed],
        outputs: dict[str, Placed],
    ) -> dict[str, Any]:
        """Run kernel(inputs, outputs), given refs by name; returns the outputs, padded."""
        arrays = varying_alike({key: placed.arrays for key, placed in inputs.items()})
        leaves = jax.tree.leaves(arrays)
        varies = jax.typeof(leaves[0]).manual_axis_type  # pyright: ignore

        def shape(x: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, manual_axis_type=varies)  # pyright: ignore

        return pl.pallas_call(
            kernel,
            out_shape={key: jax.tree.map(shape, placed.arrays) for key, placed in outputs.items()},
            grid=(self.rows * self.heads,),
            in_specs=({key: placed.specs for key, placed in inputs.items()},),
            out_specs={key: placed.specs for key, placed in outputs.items()},
            compiler_params=plgpu.CompilerParams(num_warps=warps, num_stages=1),
            interpret=interpreting(),
            name=name,
        )(arrays)

    def _place(self, tree: Any, lead: int, at: Callable[..., Any], seen: int = 0) -> Placed:
        def shaped(x: Any) -> Any:
            shape = (*x.shape[:lead], *padded(x.shape[lead:]))
            if isinstance(x, jax.ShapeDtypeStruct):
                return jax.ShapeDtypeStruct(shape, x.dtype)
            return jnp.pad(x, [(0, new - old) for new, old in zip(shape, x.shape)])

        def spec(x: Any) -> pl.BlockSpec:
            block = (*x.shape[:seen], *(None,) * (lead - seen), *x.shape[lead:])
            return pl.BlockSpec(block, lambda g: (*at(g), *[0] * (x.ndim - lead)))

        arrays = jax.tree.map(shaped, tree)
        return Placed(arrays, jax.tree.map(spec, arrays), own(tree, 0))


def later(refs: Any, *place: Any) -> Any:
    """Functions that read refs at a place, or at a block there: they take no registers before."""
    return jax.tree.map(lambda ref: lambda *block: ref[(*place, *block) or ...], refs)


def into(ref: Any, *place: Any) -> Callable[..., None]:
    """A function that writes a value at a place of a ref, or at a block there."""

    def write(value: Array, *block: Any) -> None:
        ref[(*place, *block) or ...] = value.astype(ref.dtype)

    return write


def synchronise() -> None:
    """What some threads have written, others may read."""
    if not interpreting():
        plgpu.debug_barrier()


def flags_at(refs: Any, i: Any) -> Flags:
    """Those of tile i."""
    return jax.tree.map(lambda ref: ref[i] > 0, refs)
