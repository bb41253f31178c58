"""GPU kernels: the tile step traced into Pallas's Triton, forward and backward.

A program of the grid is a head of a row. It goes through its tiles in order; the memory between two
of them stays in the L2 cache, and what a tile computes in registers. The forward kernel keeps the
memory before every tile; the backward kernel goes from the last tile to the first, and its body is
`jax.vjp` of the same step. What a tile does is `engine.tile.tile_step`.

Where a loop over tiles would hold on to too much, a kernel runs for each tile, in a `lax.scan`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from miras.kernels import triton
from miras.kernels.carried import Carried
from miras.kernels.given import Given, own
from miras.kernels.heads import Heads, flags_at, later, read, synchronise, where, write
from miras.kernels.loop import Kernels
from miras.typing import Array


class Layout(NamedTuple):
    """How kernels go through tiles.

    Attributes:
        warps: of 32 threads, that work on a head.
        looped: through all in one call; or a call for each.
    """

    warps: int
    looped: bool


def _forward(step: Carried, layout: Layout, given: Given, *, save: bool):
    """(memory, memory before the last tile, y, loss), and the memories before each tile."""
    run = functools.partial(_run_forward, step, layout.warps)
    if layout.looped:
        between, y_loss = run(given, save=save)
        tiles = given.sizes()[0]
        ends = ([x[n % x.shape[0]] for x in between] for n in (tiles, tiles - 1))
        return (*ends, *y_loss), between

    def tile(memories: tuple[list[Array], list[Array]], some: Any):
        _, before = memories
        part = given._replace(memory=before, streams=some[0], flags=some[1])
        between, y_loss = run(part)
        return (before, [x[1] for x in between]), (y_loss, before if save else None)

    start = given.memory, given.memory
    (before, after), (y_loss, saved) = lax.scan(tile, start, _one_by_one(given))
    y_loss = jax.tree.map(lambda x: x[:, 0], y_loss)
    return (after, before, *y_loss), saved


def _backward(step: Carried, layout: Layout, given: Given, saved: list[Array], cotangents: Any):
    """The cotangents of constants, memory and streams."""
    d_memory, d_before, *d_read = cotangents
    run = functools.partial(_run_backward, step, layout.warps)
    if layout.looped:
        return run(given, saved, d_memory, d_before, d_read)

    def tile(carry: Any, some: Any):
        d_constants, d_memory, d_before = carry
        one, memory, d_read = some
        part = given._replace(streams=one[0], flags=one[1])
        of_tile, d_memory, d_streams = run(part, memory, d_memory, d_before, d_read)
        d_constants = [x + d for x, d in zip(d_constants, of_tile)]
        return (d_constants, d_memory, [jnp.zeros_like(x) for x in d_before]), d_streams

    start = [jnp.zeros_like(x) for x in given.constants], d_memory, d_before
    alone = jax.tree.map(lambda x: x[:, None], (saved, d_read))
    (d_constants, d_memory, _), d_streams = lax.scan(
        tile, start, (_one_by_one(given), *alone), reverse=True
    )
    return d_constants, d_memory, jax.tree.map(lambda x: x[:, 0], d_streams)


def _one_by_one(given: Given) -> Any:
    return jax.tree.map(lambda x: x[:, None], (given.streams, given.flags))


def _run_forward(step: Carried, warps: int, given: Given, *, save: bool = False):
    """Memories between tiles, the n-th at n, or with save=False at n modulo 2; and (y, loss)."""
    program, one, sizes = step.forward(given), given.of_one_tile(), given.sizes()
    heads, places = Heads(sizes), sizes[0] + 1 if save else 2
    _, *y_loss = jax.eval_shape(step, one.flags, one.constants, one.memory, one.streams)
    inputs = {
        "flags": heads.flags(given.flags),
        "captured": heads.whole(program.constants),
        "constants": heads.by_head(given.constants),
        "memory": heads.by_row(given.memory),
        "streams": heads.by_tile(given.streams),
    }
    outputs = {
        "y_loss": heads.by_tile(_every(y_loss, *sizes)),
        "between": heads.by_tile(_every(one.memory, places, *sizes[1:])),
    }

    def kernel(inputs, outputs):
        captured, constants = later(inputs["captured"]), later(inputs["constants"])
        between = outputs["between"]
        write(between, read(inputs["memory"]), 0)

        def tile(i, _):
            synchronise()
            memory = later(between, lax.rem(i, places))
            streams, flags = later(inputs["streams"], i), flags_at(inputs["flags"], i)
            memory, *y_loss = program(triton.run, captured, flags, constants, memory, streams)
            write(outputs["y_loss"], y_loss, i)
            write(between, memory, lax.rem(i + 1, places))
            return 0

        lax.fori_loop(0, heads.tiles, tile, 0)

    out = heads.call(kernel, "miras_forward", warps, inputs, outputs)
    return tuple(_cut(out[key], outputs[key].shapes) for key in ("between", "y_loss"))


def _run_backward(step: Carried, warps: int, given: Given, saved, d_memory, d_before, d_read):
    """The cotangents of constants, memory and streams."""
    given = given._replace(memory=d_memory)  # of the same shapes
    program, sizes = step.backward(given), given.sizes()
    heads, constants, streams = Heads(sizes), given.constants, given.streams
    inputs = {
        "flags": heads.flags(given.flags),
        "captured": heads.whole(program.constants),
        "constants": heads.by_head(constants),
        "streams": heads.by_tile(streams),
        "saved": heads.by_tile(saved),
        "d_memory": heads.by_row(d_memory),
        "d_before": heads.by_row(d_before),
        "d_read": heads.by_tile(d_read),
    }
    one = given.of_one_tile()
    outputs = {
        "constants": heads.by_row(_every(one.constants, *sizes[1:])),
        "streams": heads.by_tile(own(streams, 0)),
        "between": heads.by_tile(_every(one.memory, 2, *sizes[1:])),
    }

    def kernel(inputs, outputs):
        captured, constants = later(inputs["captured"]), later(inputs["constants"])
        between, total = outputs["between"], outputs["constants"]
        write(between, read(inputs["d_memory"]), 0)
        write(total, [jnp.zeros(x.shape, x.dtype) for x in total])

        def tile(n, _):
            synchronise()
            i = heads.tiles - 1 - n
            memory, streams = later(inputs["saved"], i), later(inputs["streams"], i)
            ends = later(between, lax.rem(n, 2)), *later(inputs["d_read"], i)
            start = flags_at(inputs["flags"], i), constants, memory, streams
            d_constants, d_memory, d_streams = program(triton.run, captured, *start, ends)
            write(outputs["streams"], d_streams, i)
            d_before = where(n == 0, inputs["d_before"])
            write(between, [x + d for x, d in zip(d_memory, d_before)], lax.rem(n + 1, 2))
            write(total, [x + d for x, d in zip(read(total), d_constants)])
            return 0

        lax.fori_loop(0, heads.tiles, tile, 0)

    out = heads.call(kernel, "miras_backward", warps, inputs, outputs)
    cut = {key: _cut(out[key], placed.shapes) for key, placed in outputs.items()}
    d_constants = [jnp.sum(x, axis=0) for x in cut["constants"]]
    return d_constants, [x[sizes[0] % 2] for x in cut["between"]], cut["streams"]


def _every(shapes: Any, *lead: int) -> Any:
    """Shapes behind further dimensions."""
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct((*lead, *s.shape), s.dtype), shapes)


def _cut(arrays: Any, shapes: Any) -> Any:
    """Padded arrays in the shapes that they were given."""
    return jax.tree.map(lambda x, s: x[tuple(map(slice, s.shape))], arrays, shapes)


KERNELS = Kernels(_forward, _backward)
