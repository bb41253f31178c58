"""Carried: the tile step on those leaves alone that it reads."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from miras.array_typing import Array
from miras.backends.pallas.trace.operands import Flags, Given, given
from miras.backends.pallas.trace.program import Program, trace, used
from miras.backends.xla.rounding import rounded
from miras.engine.step import Tile
from miras.engine.tile import tile_step
from miras.rule.options import ScanOptions
from miras.rule.rule import Rule


@dataclasses.dataclass(frozen=True, eq=False)
class Leaves:
    """A choice of a tree's leaves.

    Attributes:
        tree: its structure.
        shapes: of all its leaves.
        kept: which of them are chosen.
    """

    tree: Any
    shapes: tuple[Any, ...]
    kept: tuple[bool, ...]

    def of(self, tree: Any) -> list[Array]:
        """The chosen leaves."""
        return [leaf for leaf, kept in zip(jax.tree.leaves(tree), self.kept) if kept]

    def within(self, chosen: Sequence[Array], others: Any = None) -> Any:
        """A tree of these leaves, and of the others of another tree, or zeros."""
        if others is None:
            rest = [jnp.zeros(s.shape, s.dtype) for s in self.shapes]
        else:
            rest = jax.tree.leaves(others)
        leaves = iter(chosen)
        both = [next(leaves) if kept else leaf for leaf, kept in zip(rest, self.kept)]
        return jax.tree.unflatten(self.tree, both)


@dataclasses.dataclass(frozen=True, eq=False)
class Carried:
    """The tile step on the leaves of its memory and its constants that it reads.

    A chunk's snapshot, for one, is made anew where every tile begins a chunk, and the weights from
    which segments start are of no use where there is one: neither is kept in a kernel.

    Attributes:
        step: `tile_step` of a rule.
        constants: those that it reads.
        memory: those that a tile hands on to the next.
    """

    step: Callable[..., Any]
    constants: Leaves
    memory: Leaves

    def whole(self, flags: Flags, constants: list[Array], memory: list[Array], streams: Tile):
        """(the whole memory, y, loss) of one tile of one head."""
        tile = streams._replace(chunk_start=flags.chunk_start, chunk_end=flags.chunk_end)
        whole = self.constants.within(constants), self.memory.within(memory)
        return self.step(*whole, tile, flags.reset)

    def __call__(self, flags: Flags, constants: list[Array], memory: list[Array], streams: Tile):
        """(memory, y, loss) of one tile of one head."""
        after, y, loss = self.whole(flags, constants, memory, streams)
        return self.memory.of(after), y, loss

    def pair(self, flags: Flags, constants: list, memory: list, first: Tile, second: Tile):
        """(memory, (y, loss) of the first, of the second) of two chunks of one head."""
        size = first.write.shape[0]
        both: Any = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), first, second)
        memory, *read = self(flags, constants, memory, both)
        return memory, tuple(x[:size] for x in read), tuple(x[size:] for x in read)

    def forward(self, given: Given) -> Program:
        """(flags, constants, memory, streams) -> (memory, y, loss), for one tile of one head."""
        one = given.of_one_tile()
        return trace(self, one.flags, one.constants, one.memory, one.streams)

    def forward_pair(self, given: Given) -> Program:
        """(flags, constants, memory, streams, streams) -> as `pair`, for one head."""
        one = given.of_one_tile()
        return trace(self.pair, *(one.flags, one.constants, one.memory, one.streams, one.streams))

    def backward(self, given: Given) -> Program:
        """(flags, constants, memory, streams, cotangents) -> cotangents of the middle three."""
        one = given.of_one_tile()

        def backward(flags, constants, memory, streams, cotangents):
            _, pull = jax.vjp(functools.partial(self, flags), constants, memory, streams)
            return pull(cotangents)

        shapes = one.flags, one.constants, one.memory, one.streams
        return trace(backward, *shapes, jax.eval_shape(self, *shapes))


def everywhere(step: Callable[..., Any]) -> Callable[..., Any]:
    """A function of (flags, constants, memory, streams) of one head, for all rows and heads."""
    return jax.jit(jax.vmap(jax.vmap(step, (None, 0, 0, 0)), (0, None, 0, 0)))


def carried(step: Callable[..., Any], *args: Any) -> tuple[Carried, Given]:
    """The step on what it reads, and what it is given of that.

    Args:
        step: `tile_step` of a rule.
        *args: see `given.given`.
    """
    whole = given(*args)
    one = whole.of_one_tile()
    trees = one.constants, one.memory
    every = [
        Leaves(jax.tree.structure(tree), tuple(leaves), (True,) * len(leaves))
        for tree in trees
        for leaves in [jax.tree.leaves(tree)]
    ]
    shapes = [list(choice.shapes) for choice in every]
    program = trace(Carried(step, *every), one.flags, *shapes, one.streams)
    kept = iter(used(program)[len(jax.tree.leaves(one.flags)) :])
    chosen = [
        dataclasses.replace(choice, kept=tuple(next(kept) for _ in choice.shapes))
        for choice in every
    ]
    constants, memory = (choice.of(tree) for choice, tree in zip(chosen, whole[:2]))
    return Carried(step, *chosen), whole._replace(constants=constants, memory=memory)


def carried_by(
    rule: Rule,
    options: ScanOptions,
    operands: tuple[Any, ...],
    through: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda loop: loop,
) -> tuple[Carried, Given]:
    """As `carried`, of shapes.

    Args:
        rule: the four parts.
        options: of the call.
        operands: shapes of what a loop over tiles is called with.
        through: what is around the loop.
    """
    found: list[Any] = []

    def record(step, *args):
        step, loop = carried(step, *args)
        found.append((step, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), loop)))
        lead, width = loop.streams.q.shape[:4], loop.streams.v.shape[-1]
        dtype = jax.tree.leaves(args[1])[0].dtype
        return args[1], jnp.zeros((*lead, width), dtype), jnp.zeros(lead, dtype)

    step = rounded(functools.partial(tile_step, rule, options), options.precision)
    jax.eval_shape(functools.partial(through(record), step), *operands)
    return found[0]
