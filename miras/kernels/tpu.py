"""TPU kernels: the tile step traced into Pallas, forward and backward.

The grid is (rows x heads, groups of tiles): heads in parallel, a head's groups in order, its memory
in VMEM between them. The forward kernel saves the memory before every group; the backward kernel
goes through the groups from last to first, steps again from the saved memory to those between, and
its body is `jax.vjp` of the same step. What a tile does is `engine.tile.tile_step`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from miras.engine.chunk import Fast, Tile
from miras.engine.tile import Constants
from miras.kernels.grid import Flags, Grid, Layout
from miras.kernels.operations import run
from miras.kernels.program import Program, trace, used
from miras.kernels import refs
from miras.kernels.refs import (
    add,
    as_block,
    clear,
    copy,
    like,
    lying,
    own,
    read,
    values,
    vmem,
    write,
)
from miras.typing import Array


class Streams(NamedTuple):
    """What of a tile has a gradient; see `Tile`."""

    q: Array
    k: Array
    v: Array
    k_write: Array | None
    gates: dict[str, Array]
    write: Array


class Given(NamedTuple):
    """What a loop over tiles is given: leaves [H, ...], [B, H, ...], [N, B, H, C, ...], [N, B]."""

    constants: Constants
    memory: Any
    streams: Streams
    flags: Flags

    def of_one_tile(self) -> "Given":
        """The shapes for one tile of one head."""
        return Given(*(own(tree, lead) for tree, lead in zip(self, (1, 2, 3, 2))))


def given(constants: Constants, memory: Fast, tiles: Tile, resets: Array | None) -> Given:
    """The arguments of a loop over tiles, see `engine.xla.Loop`, each with those of its shape."""
    streams = Streams(*(getattr(tiles, name) for name in Streams._fields))
    write = jnp.broadcast_to(tiles.write[:, :, None], tiles.q.shape[:4])
    flags = Flags(tiles.fresh, tiles.fire, resets)
    return Given(constants, memory, streams._replace(write=write), flags)


def in_kernel(step: Callable[..., Any], *args: Any, layout: Layout) -> tuple[Fast, Array, Array]:
    """As `engine.xla.in_order`, in kernels.

    Args:
        step: `tile_step` of a rule.
        *args: see `given`.
        layout: how the kernels go through the tiles.
    """
    carried, (constants, kept, streams, flags) = prepared(step, *args)
    kept, before, y, loss = _run(carried, layout, constants, kept, streams, flags)
    # The rest of the memory is made anew by every tile: only the last one's is wanted.
    last_streams, last_flags = jax.tree.map(lambda x: x[-1], (streams, flags))
    step = jax.vmap(jax.vmap(carried.whole, (None, 0, 0, 0)), (0, None, 0, 0))
    renewed, *_ = jax.jit(step)(last_flags, constants, before, last_streams)
    return carried.joined(kept, renewed), y, loss


def prepared(step: Callable[..., Any], *args: Any) -> tuple["Carried", Given]:
    """The step on what tiles hand on, and its arguments."""
    whole = given(*args)
    carried = Carried.of(step, whole)
    return carried, whole._replace(memory=carried.split(whole.memory))


@dataclasses.dataclass(frozen=True, eq=False)
class Carried:
    """The leaves of a memory that one tile hands on to the next, and the step on them alone.

    A chunk's snapshot, for one, is made anew where every tile begins a chunk.

    Attributes:
        step: `tile_step` of a rule.
        shapes: the leaves of one head's memory.
        tree: its structure.
        kept: whether the step reads a leaf.
    """

    step: Callable[..., Any]
    shapes: tuple[Any, ...]
    tree: Any
    kept: tuple[bool, ...]

    @classmethod
    def of(cls, step: Callable[..., Any], given: Given) -> "Carried":
        """What the step on such tiles reads."""
        one = given.of_one_tile()
        leaves, tree = jax.tree.flatten(one.memory)
        every = cls(step, tuple(leaves), tree, (True,) * len(leaves))
        program = trace(every, one.flags, one.constants, leaves, one.streams)
        first = len(jax.tree.leaves((one.flags, one.constants)))
        kept = tuple(used(program)[first : first + len(leaves)])
        return dataclasses.replace(every, kept=kept)

    def split(self, memory: Any) -> list[Array]:
        """The kept leaves of a memory."""
        return [leaf for leaf, kept in zip(jax.tree.leaves(memory), self.kept) if kept]

    def joined(self, kept: list[Array], rest: Any) -> Any:
        """A memory of these leaves, and the others of another memory."""
        leaves = iter(kept)
        both = zip(jax.tree.leaves(rest), self.kept)
        return jax.tree.unflatten(self.tree, [next(leaves) if k else leaf for leaf, k in both])

    def whole(self, flags: Flags, constants: Constants, kept: list[Array], streams: Streams):
        """(memory, y, loss) of one tile of one head."""
        zeros = [jnp.zeros(s.shape, s.dtype) for s in self.shapes]
        memory = self.joined(kept, jax.tree.unflatten(self.tree, zeros))
        tile = Tile(*streams, fresh=flags.fresh, fire=flags.fire)
        return self.step(constants, memory, tile, flags.reset)

    def __call__(self, flags: Flags, constants: Constants, kept: list[Array], streams: Streams):
        """(kept, y, loss) of one tile of one head."""
        memory, y, loss = self.whole(flags, constants, kept, streams)
        return self.split(memory), y, loss


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _run(step, layout, constants, memory, streams, flags):
    return _forward(step, layout, Given(constants, memory, streams, flags))[0]


def _run_fwd(step, layout, constants, memory, streams, flags):
    out, saved = _forward(step, layout, Given(constants, memory, streams, flags))
    return out, (constants, streams, flags, saved)


def _run_bwd(step, layout, kept, cotangents):
    return (*_backward(step, layout, *kept, cotangents), None)


_run.defvjp(_run_fwd, _run_bwd)


def forward_program(step: Carried, given: Given) -> Program:
    """(flags, constants, memory, streams) -> (memory, y, loss), for one tile of one head."""
    one = given.of_one_tile()
    return trace(step, one.flags, one.constants, one.memory, one.streams)


def backward_program(step: Carried, given: Given) -> Program:
    """(flags, constants, memory, streams, cotangents) -> cotangents of the middle three."""
    one = given.of_one_tile()

    def backward(flags, constants, memory, streams, cotangents):
        _, pull = jax.vjp(functools.partial(step, flags), constants, memory, streams)
        return pull(cotangents)

    shapes = one.flags, one.constants, one.memory, one.streams
    return trace(backward, *shapes, jax.eval_shape(step, *shapes))


def _in_blocks(program: Program, shapes: Any, *blocks: Any) -> Program:
    """A program of values of these shapes as one of the blocks in which they lie.

    Args:
        program: of values; traced here with its operations as a TPU's kernel has them.
        shapes: of its arguments, and of its results.
        *blocks: of its arguments, and of its results.
    """
    *given, results = blocks
    of_values = shapes

    def in_blocks(captured, *args):
        out = program(run, captured, *values(args, of_values))
        return refs.blocks(out, results)

    return trace(in_blocks, own(program.constants, 0), *given)


def _forward(step: Carried, layout: Layout, given: Given):
    """(memory, memory before the last tile, y, loss), and the memories before each group."""
    program, one = forward_program(step, given), given.of_one_tile()
    sizes = given.streams.q.shape[:3]
    grid = Grid(sizes, layout)
    read_shapes = jax.eval_shape(step, one.flags, *one[:3])[1:]
    y_loss = _every(read_shapes, *sizes)
    constants, memory = lying(given.constants, 1), lying(given.memory, 2)
    blocks = Given(own(constants, 1), own(memory, 2), as_block(one.streams), one.flags)
    shapes = one.flags, one.constants, one.memory, one.streams
    in_blocks = _in_blocks(
        program,
        shapes,
        blocks.flags,
        as_block(blocks.constants),
        as_block(blocks.memory),
        blocks.streams,
        (as_block(blocks.memory), *as_block(read_shapes)),
    )
    inputs = {
        "captured": grid.whole(program.constants),
        "constants": grid.by_head(constants),
        "memory": grid.by_row(memory),
        "streams": grid.by_tile(given.streams),
    }
    outputs = {
        "memory": grid.by_row(own(memory, 0)),
        "before": grid.by_row(own(memory, 0)),
        "y_loss": grid.by_tile(y_loss),
        "saved": grid.by_group(_every(own(memory, 0), grid.groups)),
    }

    def kernel(flags, inputs, outputs, scratch):
        held = scratch["memory"]
        captured = [x[...].reshape(c.shape) for x, c in zip(inputs["captured"], program.constants)]

        @pl.when(pl.program_id(1) == 0)
        def _():
            copy(inputs["memory"], held)

        copy(held, outputs["saved"])

        def tile(i):
            @pl.when(grid.is_last(i))
            def _():
                copy(held, outputs["before"])

            at = grid.flags(flags, given.flags, i)
            args = [
                (captured, at, read(inputs["constants"], h), read(held, h), read(inputs["streams"], i, h))
                for h in grid.beside
            ]
            for h, (memory, *y_loss) in enumerate(in_blocks.side_by_side([], *args)):
                write(held, memory, h)
                write(outputs["y_loss"], tuple(y_loss), i, h)

        grid.forwards(tile)
        copy(held, outputs["memory"])

    scratch = {"memory": vmem(own(memory, 2), len(grid.beside))}
    out = grid.call(kernel, "miras_forward", given.flags, inputs, outputs, scratch)
    ends = like(out["memory"], given.memory), like(out["before"], given.memory)
    return (*ends, *like(out["y_loss"], y_loss)), out["saved"]


def _backward(step: Carried, layout: Layout, constants, streams, flags, saved, cotangents):
    """The cotangents of constants, memory and streams."""
    d_memory, d_before, *d_read = cotangents
    given = Given(constants, d_memory, streams, flags)
    again, back = forward_program(step, given), backward_program(step, given)
    one = given.of_one_tile()
    grid = Grid(streams.q.shape[:3], layout, reverse=True)
    lying_constants, lying_memory = lying(own(constants, 0), 1), lying(own(d_memory, 0), 2)
    b_c, b_m = as_block(own(lying_constants, 1)), as_block(own(lying_memory, 2))
    b_s, b_r = as_block(one.streams), tuple(as_block(own(d_read, 3)))
    shapes = one.flags, one.constants, one.memory, one.streams
    again_in = _in_blocks(again, shapes, one.flags, b_c, b_m, b_s, (b_m, *b_r))
    ends = (one.memory, *own(d_read, 3))
    back_in = _in_blocks(
        back, (*shapes, ends), one.flags, b_c, b_m, b_s, (b_m, *b_r), (b_c, b_m, b_s)
    )
    inputs = {
        "again": grid.whole(again.constants),
        "back": grid.whole(back.constants),
        "constants": grid.by_head(lying(constants, 1)),
        "streams": grid.by_tile(streams),
        "saved": grid.by_group(saved),
        "d_memory": grid.by_row(lying(d_memory, 2)),
        "d_before": grid.by_row(lying(d_before, 2)),
        "d_read": grid.by_tile(tuple(d_read)),
    }
    outputs = {
        "constants": grid.by_row(_every(lying_constants, grid.rows)),
        "memory": grid.by_row(lying_memory),
        "streams": grid.by_tile(own(streams, 0)),
    }

    def kernel(flags, inputs, outputs, scratch):
        between, held, total = scratch["between"], scratch["memory"], scratch["constants"]
        for_again = [x[...].reshape(c.shape) for x, c in zip(inputs["again"], again.constants)]
        for_back = [x[...].reshape(c.shape) for x, c in zip(inputs["back"], back.constants)]

        def start(i, h):
            constants = read(inputs["constants"], h)
            at = grid.flags(flags, given.flags, i)
            return at, constants, read(between, i, h), read(inputs["streams"], i, h)

        @pl.when(pl.program_id(1) == 0)
        def _():
            copy(inputs["d_memory"], held)
            clear(total)

        copy(inputs["saved"], between, 0)

        def forwards(i):
            args = [(for_again, *start(i, h)) for h in grid.beside]
            for h, (memory, *_) in enumerate(again_in.side_by_side([], *args)):
                write(between, memory, i + 1, h)

        def backwards(i):
            args = [
                (for_back, *start(i, h), (read(held, h), *read(inputs["d_read"], i, h)))
                for h in grid.beside
            ]
            for h, (d_constants, d_memory, d_streams) in enumerate(back_in.side_by_side([], *args)):
                write(held, d_memory, h)
                write(outputs["streams"], d_streams, i, h)
                add(total, d_constants, h)

            @pl.when(grid.is_last(i))
            def _():
                for h in grid.beside:
                    add(held, read(inputs["d_before"], h), h)

        grid.forwards(forwards, but_last=True)
        grid.backwards(backwards)
        copy(held, outputs["memory"])
        copy(total, outputs["constants"])

    beside = len(grid.beside)
    scratch = {
        "between": vmem(own(lying_memory, 2), grid.group, beside),
        "memory": vmem(own(lying_memory, 2), beside),
        "constants": vmem(own(lying_constants, 1), beside),
    }
    out = grid.call(kernel, "miras_backward", flags, inputs, outputs, scratch)
    by_row = _every(own(constants, 0), grid.rows)
    d_constants = jax.tree.map(lambda x: jnp.sum(x, axis=0), like(out["constants"], by_row))
    return d_constants, like(out["memory"], d_memory), like(out["streams"], streams)


def _every(shapes: Any, *lead: int) -> Any:
    """Shapes behind further dimensions."""
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct((*lead, *s.shape), s.dtype), shapes)
