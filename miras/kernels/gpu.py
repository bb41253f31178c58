"""GPU kernels: the tile step traced into Pallas's Triton, forward and backward.

A program of the grid is a head of a row. It goes through the head's tiles in order; the memory
between two of them stays in the L2 cache, and what a tile computes in registers. The forward kernel
keeps the memory before every tile; the backward kernel goes from the last tile to the first, and
its body is `jax.vjp` of the same step. What a tile does is `engine.tile.tile_step`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from miras.engine.chunk import Fast, Tile
from miras.kernels.carried import Carried
from miras.kernels.given import Given, own
from miras.kernels.heads import Heads, flags_at, later, read, synchronise, where, write
from miras.kernels.loop import Kernels, in_kernels
from miras.kernels.triton import run
from miras.typing import Array


class Layout(NamedTuple):
    """How kernels go through tiles.

    Attributes:
        warps: of 32 threads, that work on a head.
        group: tiles of a call: 1, or all if as many or more.
    """

    warps: int
    group: int


def in_groups(
    step: Callable[..., Any],
    constants: Any,
    memory: Fast,
    tiles: Tile,
    resets: Array | None,
    *,
    layout: Layout,
) -> tuple[Fast, Array, Array]:
    """As `engine.xla.in_order`, in kernels, a group of tiles in each call."""
    loop = functools.partial(in_kernels, KERNELS, step, layout=layout)
    count = tiles.write.shape[0]
    if count <= layout.group:
        return loop(constants, memory, tiles, resets)
    whole = count // layout.group * layout.group
    grouped = jax.tree.map(
        lambda x: x[:whole].reshape(-1, layout.group, *x.shape[1:]), (tiles, resets)
    )

    def body(memory: Fast, some: tuple[Tile, Array | None]):
        memory, *read = loop(constants, memory, *some)
        return memory, read

    memory, read = lax.scan(body, memory, grouped)
    read = [x.reshape(whole, *x.shape[2:]) for x in read]
    if whole < count:
        rest = jax.tree.map(lambda x: x[whole:], (tiles, resets))
        memory, *more = loop(constants, memory, *rest)
        read = [jnp.concatenate(parts) for parts in zip(read, more)]
    y, loss = read
    return memory, y, loss


def _forward(step: Carried, layout: Layout, given: Given, *, save: bool):
    """(memory, memory before the last tile, y, loss), and the memories before each tile."""
    program, one = step.forward(given), given.of_one_tile()
    sizes = given.sizes()
    heads = Heads(sizes)
    _, *read_shapes = jax.eval_shape(step, one.flags, one.constants, one.memory, one.streams)

    def every(tree: Any, count: int = sizes[0]) -> Any:
        return jax.tree.map(
            lambda s: jax.ShapeDtypeStruct((count, *sizes[1:], *s.shape), s.dtype), tree
        )

    y_loss = every(tuple(read_shapes))
    inputs = {
        "flags": heads.flags(given.flags),
        "captured": heads.whole(program.constants),
        "constants": heads.by_head(given.constants),
        "memory": heads.by_row(given.memory),
        "streams": heads.by_tile(given.streams),
    }
    places = sizes[0] + 1 if save else 2
    outputs = {
        "memory": heads.by_row(own(given.memory, 0)),
        "before": heads.by_row(own(given.memory, 0)),
        "y_loss": heads.by_tile(y_loss),
        "between": heads.by_tile(every(one.memory, places)),
    }

    def kernel(inputs, outputs):
        captured, constants = later(inputs["captured"]), later(inputs["constants"])
        between = outputs["between"]
        write(between, read(inputs["memory"]), 0)

        def tile(i, _):
            synchronise()
            memory = later(between, lax.rem(i, places))
            streams = later(inputs["streams"], i)
            at = flags_at(inputs["flags"], i)
            memory, *y_loss = program(run, captured, at, constants, memory, streams)
            write(outputs["y_loss"], tuple(y_loss), i)
            write(between, memory, lax.rem(i + 1, places))

            @pl.when(i == heads.tiles - 1)
            def _():
                write(outputs["memory"], memory)
                write(outputs["before"], read(between, lax.rem(i, places)))

            return 0

        lax.fori_loop(0, heads.tiles, tile, 0)

    out = heads.call(kernel, "miras_forward", layout.warps, inputs, outputs)
    ends = _cut(out["memory"], given.memory), _cut(out["before"], given.memory)
    return (*ends, *_cut(out["y_loss"], y_loss)), out["between"] if save else None


def _backward(step: Carried, layout: Layout, given: Given, saved, cotangents):
    """The cotangents of constants, memory and streams."""
    d_memory, d_before, *d_read = cotangents
    given = given._replace(memory=d_memory)  # of the same shapes
    constants, _, streams, flags = given
    back = step.backward(given)
    heads = Heads(given.sizes())
    inputs = {
        "flags": heads.flags(flags),
        "captured": heads.whole(back.constants),
        "constants": heads.by_head(constants),
        "streams": heads.by_tile(streams),
        "saved": heads.by_tile(saved),
        "d_memory": heads.by_row(d_memory),
        "d_before": heads.by_row(d_before),
        "d_read": heads.by_tile(tuple(d_read)),
    }
    by_row = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((heads.rows, *x.shape), x.dtype), constants
    )
    outputs = {
        "constants": heads.by_row(by_row),
        "memory": heads.by_row(own(d_memory, 0)),
        "streams": heads.by_tile(own(streams, 0)),
        "between": heads.by_tile([jax.ShapeDtypeStruct((2, *x.shape), x.dtype) for x in d_memory]),
    }

    def kernel(inputs, outputs):
        captured, constants = later(inputs["captured"]), later(inputs["constants"])
        between = outputs["between"]
        write(between, read(inputs["d_memory"]), 0)
        write(outputs["constants"], [jnp.zeros(x.shape, x.dtype) for x in outputs["constants"]])

        def tile(n, _):
            synchronise()
            i = heads.tiles - 1 - n
            memory = later(inputs["saved"], i)
            streams, at = later(inputs["streams"], i), flags_at(inputs["flags"], i)
            ends = (later(between, lax.rem(n, 2)), *later(inputs["d_read"], i))
            d_constants, d_memory, d_streams = back(
                run, captured, at, constants, memory, streams, ends
            )
            write(outputs["streams"], d_streams, i)
            more = where(n == 0, inputs["d_before"])
            d_memory = [d + x for d, x in zip(d_memory, more)]
            write(between, d_memory, lax.rem(n + 1, 2))
            total = zip(read(outputs["constants"]), d_constants)
            write(outputs["constants"], [x + d for x, d in total])

            @pl.when(i == 0)
            def _():
                write(outputs["memory"], d_memory)

            return 0

        lax.fori_loop(0, heads.tiles, tile, 0)

    out = heads.call(kernel, "miras_backward", layout.warps, inputs, outputs)
    d_constants = [jnp.sum(x, axis=0) for x in _cut(out["constants"], by_row)]
    return d_constants, _cut(out["memory"], d_memory), _cut(out["streams"], streams)


def _cut(arrays: Any, tree: Any) -> Any:
    """Padded arrays in the shapes of a tree's."""
    return jax.tree.map(lambda x, s: x[tuple(map(slice, s.shape))], arrays, tree)


KERNELS = Kernels(_forward, _backward)
