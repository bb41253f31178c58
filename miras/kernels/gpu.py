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
from miras.kernels.given import Given, backward_program, forward_program, on_tile, own
from miras.kernels.heads import Heads, flags_at, later, read, synchronise, where, write
from miras.kernels.loop import Kernels, in_kernels
from miras.kernels.triton import REWRITES
from miras.kernels.used import used_of
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
    run = functools.partial(in_kernels, KERNELS, step, layout=layout)
    count = tiles.write.shape[0]
    if count <= layout.group:
        return run(constants, memory, tiles, resets)
    whole = count // layout.group * layout.group
    grouped = jax.tree.map(
        lambda x: x[:whole].reshape(-1, layout.group, *x.shape[1:]), (tiles, resets)
    )

    def body(memory: Fast, some: tuple[Tile, Array | None]):
        memory, *out = run(constants, memory, *some)
        return memory, out

    memory, out = lax.scan(body, memory, grouped)
    out = [x.reshape(whole, *x.shape[2:]) for x in out]
    if whole < count:
        rest = jax.tree.map(lambda x: x[whole:], (tiles, resets))
        memory, *more = run(constants, memory, *rest)
        out = [jnp.concatenate(parts) for parts in zip(out, more)]
    y, loss = out
    return memory, y, loss


def _forward(step: Callable[..., Any], layout: Layout, given: Given, save: bool = True):
    """(memory, y, loss), and what the step looks at of the memories before each tile."""
    program, one = forward_program(step, given), given.of_one_tile()
    sizes = given.streams.q.shape[:3]
    heads = Heads(sizes)
    _, used = used_of(program, one)
    results = jax.eval_shape(on_tile(step), one.flags, one.constants, one.memory, one.streams)

    def every(tree: Any, count: int = sizes[0]) -> Any:
        return jax.tree.map(
            lambda s: jax.ShapeDtypeStruct((count, *sizes[1:], *s.shape), s.dtype), tree
        )

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
        "y_loss": heads.by_tile(every(results[1:])),
        "between": heads.by_tile(every(used.kept(one.memory), places)),
    }

    def kernel(inputs, outputs):
        captured, constants = later(inputs["captured"]), later(inputs["constants"])
        between = outputs["between"]
        write(between, read(used.kept(inputs["memory"])), 0)

        def tile(i, _):
            synchronise()
            memory = used.joined(later(between, lax.rem(i, places)), used.nothing())
            streams = later(inputs["streams"], i)
            at = flags_at(inputs["flags"], i)
            memory, *y_loss = program(REWRITES, captured, at, constants, memory, streams)
            write(outputs["y_loss"], tuple(y_loss), i)
            write(between, used.kept(memory), lax.rem(i + 1, places))

            @pl.when(i == heads.tiles - 1)
            def _():
                write(outputs["memory"], memory)

            return 0

        lax.fori_loop(0, heads.tiles, tile, 0)

    out = heads.call(kernel, "miras_forward", layout.warps, inputs, outputs)
    y, loss = _cut(out["y_loss"], every(results[1:]))
    return (_cut(out["memory"], given.memory), y, loss), out["between"]


def _run(step: Callable[..., Any], layout: Layout, given: Given):
    return _forward(step, layout, given, save=False)[0]


def _backward(step, layout: Layout, constants, streams, flags, saved, cotangents):
    """The cotangents of constants, memory and streams."""
    d_memory, *d_read = cotangents
    given = Given(constants, d_memory, streams, flags)
    forward, back = forward_program(step, given), backward_program(step, given)
    one = given.of_one_tile()
    heads = Heads(streams.q.shape[:3])
    weights, used = used_of(forward, one)
    inputs = {
        "flags": heads.flags(flags),
        "captured": heads.whole(back.constants),
        "constants": heads.by_head(constants),
        "streams": heads.by_tile(streams),
        "saved": heads.by_tile(saved),
        "d_memory": heads.by_row(d_memory),
        "d_read": heads.by_tile(d_read),
    }
    by_row = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((heads.rows, *x.shape), x.dtype), weights.kept(constants)
    )
    outputs = {
        "constants": heads.by_row(by_row),
        "memory": heads.by_row(own(used.kept(d_memory), 0)),
        "streams": heads.by_tile(own(streams, 0)),
        "between": heads.by_tile(
            [jax.ShapeDtypeStruct((2, *x.shape), x.dtype) for x in used.kept(d_memory)]
        ),
    }

    def kernel(inputs, outputs):
        captured, constants = later(inputs["captured"]), later(inputs["constants"])
        between = outputs["between"]
        write(between, read(used.kept(inputs["d_memory"])), 0)
        write(outputs["constants"], [jnp.zeros(x.shape, x.dtype) for x in outputs["constants"]])

        def tile(n, _):
            synchronise()
            i = heads.tiles - 1 - n
            memory = used.joined(later(inputs["saved"], i), used.nothing())
            streams, at = later(inputs["streams"], i), flags_at(inputs["flags"], i)
            # What the step does not look at comes from this tile only if this is the last.
            others = where(n == 0, used.others(inputs["d_memory"]))
            d_memory = used.joined(later(between, lax.rem(n, 2)), others)
            ends = (d_memory, *later(inputs["d_read"], i))
            d_constants, d_memory, d_streams = back(
                REWRITES, captured, at, constants, memory, streams, ends
            )
            write(outputs["streams"], d_streams, i)
            write(between, used.kept(d_memory), lax.rem(n + 1, 2))
            total = zip(read(outputs["constants"]), weights.kept(d_constants))
            write(outputs["constants"], [x + d for x, d in total])

            @pl.when(i == 0)
            def _():
                write(outputs["memory"], used.kept(d_memory))

            return 0

        lax.fori_loop(0, heads.tiles, tile, 0)

    out = heads.call(kernel, "miras_backward", layout.warps, inputs, outputs)
    zeros = lambda tree: [jnp.zeros_like(x) for x in tree]  # noqa: E731
    total = [jnp.sum(x, axis=0) for x in _cut(out["constants"], by_row)]
    kept = _cut(out["memory"], used.kept(d_memory))
    return (
        weights.joined(total, zeros(weights.others(constants))),
        used.joined(kept, zeros(used.others(d_memory))),
        _cut(out["streams"], streams),
    )


def _twice(x: Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((2, *x.shape), x.dtype)


def _cut(arrays: Any, tree: Any) -> Any:
    """Padded arrays in the shapes of a tree's."""
    return jax.tree.map(lambda x, s: x[tuple(map(slice, s.shape))], arrays, tree)


KERNELS = Kernels(_run, _forward, _backward)
