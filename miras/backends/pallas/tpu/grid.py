"""The grid of a TPU kernel: which block of each array a grid step has, and the order of steps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from miras.backends.pallas.tpu.blocks import block_shape
from miras.backends.pallas.trace.operands import TileFlags
from miras.engine.devices import varying_alike

SEMANTICS = ("parallel", "arbitrary")  # heads in any order, a head's tiles in theirs
# The other of the compiler's two schedulers of instructions; a flag of libtpu 0.0.42.
LINEAR_PROGRAM_SCHEDULER = {"XLA_TPU_FORCE_LP_LLO_SCHEDULER": True}


class TpuLayout(NamedTuple):
    """How a TPU kernel goes through its tiles.

    Attributes:
        group: tiles of a grid step. The memory is saved once a group, and recomputed in between.
        vmem: bytes of VMEM that the compiler may use.
        heads: that a grid step computes interleaved, so that none waits for its own results; a
            divisor of all.
        large: whether a step has so many values that the compiler's other scheduler does better,
            and the heads of a step to be at the same equation.
        paired: heads of a grid step that takes two chunks at once, and forms momentum once for
            both, where nothing is saved; 0 for none.
        any_order: whether the compiler is told that heads may run in any order.
    """

    group: int
    vmem: int
    heads: int = 1
    large: bool = False
    paired: int = 0
    any_order: bool = True


class TpuBlocks(NamedTuple):
    """A tree of arrays or their shapes, at least two dimensions to a block, and their blocks."""

    arrays: Any
    specs: Any


class TpuGrid:
    """The grid (rows x heads, groups of tiles).

    Args:
        sizes: tiles N, rows B and heads H.
        layout: how the kernel goes through the tiles.
        reverse: from the last tile to the first.
    """

    def __init__(self, sizes: tuple[int, int, int], layout: TpuLayout, reverse: bool = False):
        self.tiles, self.rows, heads = sizes
        self.group, self.vmem = min(layout.group, self.tiles), layout.vmem
        self.large, self.any_order = layout.large, layout.any_order
        self.interleaved = layout.heads  # heads of a grid step
        self.head_groups = heads // layout.heads
        self.groups = pl.cdiv(self.tiles, self.group)
        self.reverse = reverse

    def whole(self, tree: Any) -> TpuBlocks:
        """Arrays of which every grid step has the whole."""
        return self._place(tree, (), lambda g, n: ())

    def by_head(self, tree: Any) -> TpuBlocks:
        """Arrays [H, ...]."""
        return self._place(tree, (self.interleaved,), lambda g, n: (g % self.head_groups,))

    def by_row(self, tree: Any) -> TpuBlocks:
        """Arrays [B, H, ...]."""
        at = lambda g, n: (g // self.head_groups, g % self.head_groups)  # noqa: E731
        return self._place(tree, (None, self.interleaved), at)

    def by_group(self, tree: Any) -> TpuBlocks:
        """Arrays [groups, B, H, ...]."""
        return self._place(tree, (None, None, self.interleaved), self._group_at)

    def by_tile(self, tree: Any) -> TpuBlocks:
        """Arrays [N, B, H, ...], a group of tiles at once."""
        return self._place(tree, (self.group, None, self.interleaved), self._group_at)

    def flags(self, ref: Any, flags: TileFlags, i: Any) -> TileFlags:
        """The flags of the group's tile i, from scalar memory."""
        at = (self._first() + i) * self.rows + pl.program_id(0) // self.head_groups
        each: Any = (None if x is None else ref[f, at] > 0 for f, x in enumerate(flags))
        return TileFlags(*each)

    def at_start(self) -> Any:
        """Whether this is the first step of its heads."""
        return pl.program_id(1) == 0

    def at_end(self) -> Any:
        """Whether this is the last step of its heads."""
        return pl.program_id(1) == self.groups - 1

    def is_last(self, i: Any) -> Any:
        """Whether the group's tile i is the last of all."""
        return self._first() + i == self.tiles - 1

    def forwards(self, body: Callable[[Any], None], *, but_last: bool = False) -> None:
        """Body(i) for the tiles i of this grid step's group; the last group may have fewer."""
        self._loop(body, self._count() - but_last, lambda i, count: i)

    def backwards(self, body: Callable[[Any], None]) -> None:
        """The same from the last to the first."""
        self._loop(body, self._count(), lambda i, count: count - 1 - i)

    def call(
        self,
        kernel: Callable[..., None],
        name: str,
        flags: TileFlags,
        inputs: dict[str, TpuBlocks],
        outputs: dict[str, TpuBlocks],
        scratch: dict[str, Any],
    ) -> dict[str, Any]:
        """Run kernel(flags, inputs, outputs, scratch), given refs by name; returns the outputs."""
        rows = [None if x is None else x.reshape(-1).astype(jnp.int32) for x in flags]
        chunk_end = flags.chunk_end.reshape(-1).astype(jnp.int32)
        table = jnp.stack([chunk_end if x is None else x for x in rows])
        arrays = {key: blocks.arrays for key, blocks in inputs.items()}
        table, arrays = varying_alike((table, arrays))
        varies = jax.typeof(table).manual_axis_type  # pyright: ignore[reportAttributeAccessIssue]

        def shape(x: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, manual_axis_type=varies)  # pyright: ignore

        return pl.pallas_call(
            kernel,
            out_shape={key: jax.tree.map(shape, blocks.arrays) for key, blocks in outputs.items()},
            grid_spec=pltpu.PrefetchScalarGridSpec(
                num_scalar_prefetch=1,
                grid=(self.rows * self.head_groups, self.groups),
                in_specs=({key: blocks.specs for key, blocks in inputs.items()},),
                out_specs={key: blocks.specs for key, blocks in outputs.items()},
                scratch_shapes=[scratch],
            ),
            compiler_params=pltpu.CompilerParams(
                dimension_semantics=SEMANTICS if self.any_order else None,
                vmem_limit_bytes=self.vmem,
                flags=LINEAR_PROGRAM_SCHEDULER if self.large else None,
            ),
            name=name,
        )(table, arrays)

    def _group_at(self, g: Any, n: Any) -> tuple[Any, Any, Any]:
        return self._nth(n), g // self.head_groups, g % self.head_groups

    def _nth(self, n: Any) -> Any:
        return self.groups - 1 - n if self.reverse else n

    def _first(self) -> Any:
        """The first tile of this step's group."""
        return self._nth(pl.program_id(1)) * self.group

    def _count(self) -> Any:
        if self.group == 1:
            return 1
        return jnp.minimum(self.group, self.tiles - self._first())

    def _loop(self, body: Callable[[Any], None], count: Any, place: Callable[..., Any]) -> None:
        if self.group == 1:
            if count:
                body(0)
            return

        def one(i, _):
            body(place(i, count))
            return 0

        lax.fori_loop(0, count, one, 0)

    def _place(self, tree: Any, lead: tuple[int | None, ...], at: Callable[..., Any]) -> TpuBlocks:
        def shaped(x: Any) -> Any:
            shape = (*x.shape[: len(lead)], *block_shape(x.shape[len(lead) :]))
            if isinstance(x, jax.ShapeDtypeStruct):
                return jax.ShapeDtypeStruct(shape, x.dtype)
            return x.reshape(shape)

        def spec(x: Any) -> pl.BlockSpec:
            own = x.shape[len(lead) :]
            return pl.BlockSpec(lead + own, lambda g, n, *_: (*at(g, n), *[0] * len(own)))

        arrays = jax.tree.map(shaped, tree)
        return TpuBlocks(arrays, jax.tree.map(spec, arrays))
