"""The grid of a GPU kernel: which block of each array a head has, and how it is read."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from miras.array_typing import Array
from miras.backends.pallas.gpu.padded import padded
from miras.backends.pallas.interpreter import interpreting
from miras.backends.pallas.trace.operands import TileFlags
from miras.backends.pallas.trace.program import shapes_of
from miras.engine.devices import varying_alike


class GpuBlocks(NamedTuple):
    """A tree of padded arrays or their shapes, their blocks, and their shapes before padding."""

    arrays: Any
    specs: Any
    shapes: Any


class GpuGrid:
    """The grid (rows x heads).

    Args:
        sizes: tiles N, rows B and heads H.
    """

    def __init__(self, sizes: tuple[int, ...]):
        self.tiles, self.rows, self.heads = sizes

    def whole(self, tree: Any) -> GpuBlocks:
        """Arrays of which every program has the whole."""
        return self._place(tree, 0, lambda g: ())

    def by_head(self, tree: Any) -> GpuBlocks:
        """Arrays [H, ...]."""
        return self._place(tree, 1, lambda g: (g % self.heads,))

    def by_row(self, tree: Any) -> GpuBlocks:
        """Arrays [B, H, ...]."""
        return self._place(tree, 2, lambda g: (g // self.heads, g % self.heads))

    def by_tile(self, tree: Any) -> GpuBlocks:
        """Arrays [N, B, H, ...], all of a head's tiles."""
        return self._place(tree, 3, lambda g: (0, g // self.heads, g % self.heads), stacked=1)

    def flags(self, flags: TileFlags) -> GpuBlocks:
        """Flags [N, B], as numbers."""
        numbers = jax.tree.map(lambda x: x.astype(jnp.int32), flags)
        return self._place(numbers, 2, lambda g: (0, g // self.heads), stacked=1)

    def call(
        self,
        kernel: Callable[[dict, dict], None],
        name: str,
        warps: int,
        inputs: dict[str, GpuBlocks],
        outputs: dict[str, GpuBlocks],
    ) -> dict[str, Any]:
        """Run kernel(inputs, outputs), given refs by name; returns the outputs, padded."""
        arrays = varying_alike({key: blocks.arrays for key, blocks in inputs.items()})
        leaves = jax.tree.leaves(arrays)
        varies = jax.typeof(leaves[0]).manual_axis_type  # pyright: ignore

        def shape(x: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, manual_axis_type=varies)  # pyright: ignore

        return pl.pallas_call(
            kernel,
            out_shape={key: jax.tree.map(shape, blocks.arrays) for key, blocks in outputs.items()},
            grid=(self.rows * self.heads,),
            in_specs=({key: blocks.specs for key, blocks in inputs.items()},),
            out_specs={key: blocks.specs for key, blocks in outputs.items()},
            compiler_params=plgpu.CompilerParams(num_warps=warps, num_stages=1),
            interpret=interpreting(),
            name=name,
        )(arrays)

    def _place(self, tree: Any, lead: int, at: Callable[..., Any], stacked: int = 0) -> GpuBlocks:
        def shaped(x: Any) -> Any:
            shape = (*x.shape[:lead], *padded(x.shape[lead:]))
            if isinstance(x, jax.ShapeDtypeStruct):
                return jax.ShapeDtypeStruct(shape, x.dtype)
            return jnp.pad(x, [(0, new - old) for new, old in zip(shape, x.shape)])

        def spec(x: Any) -> pl.BlockSpec:
            block = (*x.shape[:stacked], *(None,) * (lead - stacked), *x.shape[lead:])
            return pl.BlockSpec(block, lambda g: (*at(g), *[0] * (x.ndim - lead)))

        arrays = jax.tree.map(shaped, tree)
        return GpuBlocks(arrays, jax.tree.map(spec, arrays), shapes_of(tree))


def readers(refs: Any, *place: Any) -> Any:
    """Functions that read refs at a place, or at a block there: no register is taken before."""
    return jax.tree.map(lambda ref: lambda *block: ref[(*place, *block) or ...], refs)


def writer(ref: Any, *place: Any) -> Callable[..., None]:
    """A function that writes a value to a ref at a place, or at a block there."""

    def write(value: Array, *block: Any) -> None:
        ref[(*place, *block) or ...] = value.astype(ref.dtype)

    return write


def synchronise() -> None:
    """Wait until all threads read what others have written."""
    if not interpreting():
        plgpu.debug_barrier()


def flags_at(refs: Any, i: Any) -> TileFlags:
    """Those of tile i."""
    return jax.tree.map(lambda ref: ref[i] > 0, refs)
