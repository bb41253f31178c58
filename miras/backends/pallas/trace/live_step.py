"""The tile step on its live state: the leaves of memory and constants that it reads."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from miras.array_typing import Array
from miras.backends.pallas.trace.liveness import live_arguments
from miras.backends.pallas.trace.operands import ScanOperands, TileFlags, scan_operands
from miras.backends.pallas.trace.program import Program, trace
from miras.backends.xla.rounding import rounded
from miras.engine.joined_chunks import can_join, joined_step
from miras.engine.step import Tile
from miras.engine.tile import tile_step
from miras.rule.options import ScanOptions
from miras.rule.rule import Rule


@dataclasses.dataclass(frozen=True, eq=False)
class LeafSelection:
    """A selection of a tree's leaves.

    Attributes:
        tree: its structure.
        shapes: of all its leaves.
        selected: which of them are selected.
    """

    tree: Any
    shapes: tuple[Any, ...]
    selected: tuple[bool, ...]

    @classmethod
    def all(cls, tree: Any) -> "LeafSelection":
        """All leaves of a tree of shapes."""
        leaves, structure = jax.tree.flatten(tree)
        return cls(structure, tuple(leaves), (True,) * len(leaves))

    def of(self, tree: Any) -> list[Array]:
        """The selected leaves."""
        return [leaf for leaf, chosen in zip(jax.tree.leaves(tree), self.selected) if chosen]

    def fill(self, selected: Sequence[Array], others: Any = None) -> Any:
        """A tree of these leaves, and elsewhere of another tree's, or of zeros."""
        if others is None:
            rest = [jnp.zeros(s.shape, s.dtype) for s in self.shapes]
        else:
            rest = jax.tree.leaves(others)
        leaves = iter(selected)
        both = [next(leaves) if chosen else leaf for leaf, chosen in zip(rest, self.selected)]
        return jax.tree.unflatten(self.tree, both)


@dataclasses.dataclass(frozen=True, eq=False)
class LiveStep:
    """The tile step as a function of those leaves of memory and constants that are live.

    Where every tile begins a chunk, for instance, the step takes its snapshot from the memory: then
    the snapshot that it is handed is dead, and a kernel does not keep it.

    Attributes:
        step: `tile_step` of a rule.
        constants: those that it reads.
        memory: those that a later tile reads.
        joined: `joined_step` of the rule, for `pair`; None where its chunks cannot be joined.
    """

    step: Callable[..., Any]
    constants: LeafSelection
    memory: LeafSelection
    joined: Callable[..., Any] | None = None

    def full(self, flags: TileFlags, constants: list[Array], memory: list[Array], streams: Tile):
        """(the memory with its dead leaves, y, loss) of one tile of one head."""
        tile = streams._replace(chunk_start=flags.chunk_start, chunk_end=flags.chunk_end)
        return self.step(
            self.constants.fill(constants), self.memory.fill(memory), tile, flags.reset
        )

    def __call__(
        self, flags: TileFlags, constants: list[Array], memory: list[Array], streams: Tile
    ):
        """(live memory, y, loss) of one tile of one head."""
        after, y, loss = self.full(flags, constants, memory, streams)
        return self.memory.of(after), y, loss

    def pair(self, flags: TileFlags, constants: list, memory: list, first: Tile, second: Tile):
        """(memory, (y, loss) of the first, of the second) of two chunks of one head."""
        assert self.joined is not None
        chunks = (
            streams._replace(chunk_start=flags.chunk_start, chunk_end=flags.chunk_end)
            for streams in (first, second)
        )
        full = self.constants.fill(constants), self.memory.fill(memory)
        after, read = self.joined(*full, *chunks)
        return self.memory.of(after), *map(tuple, read)

    def forward(self, operands: ScanOperands) -> Program:
        """(flags, constants, memory, streams) -> (memory, y, loss), for one tile of one head."""
        one = operands.tile_shapes()
        return trace(self, one.flags, one.constants, one.memory, one.streams)

    def forward_pair(self, operands: ScanOperands) -> Program:
        """(flags, constants, memory, streams, streams) -> as `pair`, for one head."""
        one = operands.tile_shapes()
        return trace(self.pair, *(one.flags, one.constants, one.memory, one.streams, one.streams))

    def backward(self, operands: ScanOperands) -> Program:
        """(flags, constants, memory, streams, cotangents) -> cotangents of the middle three."""
        one = operands.tile_shapes()

        def backward(flags, constants, memory, streams, cotangents):
            _, pull = jax.vjp(functools.partial(self, flags), constants, memory, streams)
            return pull(cotangents)

        shapes = one.flags, one.constants, one.memory, one.streams
        return trace(backward, *shapes, jax.eval_shape(self, *shapes))


def over_rows_and_heads(step: Callable[..., Any]) -> Callable[..., Any]:
    """A function of (flags, constants, memory, streams) of one head, for all rows and heads."""
    return jax.jit(jax.vmap(jax.vmap(step, (None, 0, 0, 0)), (0, None, 0, 0)))


def live_step(
    step: Callable[..., Any], operands: ScanOperands, joined: Callable[..., Any] | None = None
) -> tuple[LiveStep, ScanOperands]:
    """A tile step on its live leaves, and the operands with the live ones alone.

    Args:
        step: `tile_step` of a rule.
        operands: arrays, or their shapes.
        joined: see `LiveStep`.
    """
    one = operands.tile_shapes()
    everything = LeafSelection.all(one.constants), LeafSelection.all(one.memory)
    shapes = [list(selection.shapes) for selection in everything]
    program = trace(LiveStep(step, *everything), one.flags, *shapes, one.streams)
    live = iter(live_arguments(program.jaxpr)[len(jax.tree.leaves(one.flags)) :])
    constants, memory = (
        dataclasses.replace(selection, selected=tuple(next(live) for _ in selection.shapes))
        for selection in everything
    )
    alive = operands._replace(
        constants=constants.of(operands.constants), memory=memory.of(operands.memory)
    )
    return LiveStep(step, constants, memory, joined), alive


def planned_live_step(
    rule: Rule, options: ScanOptions, operands: Sequence[Any]
) -> tuple[LiveStep, ScanOperands]:
    """As `live_step`, for a call that is planned.

    Args:
        rule: the four parts.
        options: of the call.
        operands: shapes of what a `backends.xla.loop.Loop` is called with after the step.
    """
    step = rounded(functools.partial(tile_step, rule, options), options.precision)
    return live_step(step, jax.eval_shape(scan_operands, *operands), joined(rule, options))


def joined(rule: Rule, options: ScanOptions) -> Callable[..., Any] | None:
    """`joined_step` of a rule whose chunks can be joined; else None."""
    if not can_join(rule, options):
        return None
    return rounded(functools.partial(joined_step, rule, options), options.precision)
