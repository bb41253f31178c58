"""GPU kernels: the tile step traced into Pallas's Triton, forward and backward.

A program of the grid is a head of a row. It goes through its tiles in order; the memory between two
of them stays in the L2 cache, and what a tile computes in registers, block by block of hidden units
where it would not fit (`staged`). The forward kernel keeps the memory before every tile; the
backward kernel goes from the last tile to the first, and its body is `jax.vjp` of the same step.
What a tile does is `engine.tile.tile_step`.

Where a loop over tiles would hold on to too much, a kernel runs for each tile, in a `lax.scan`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from miras.array_typing import Array
from miras.backends.pallas.gpu import triton
from miras.backends.pallas.gpu.heads import Heads, flags_at, into, later, synchronise
from miras.backends.pallas.gpu.staged import Staged
from miras.backends.pallas.gpu.stages import in_blocks, staged
from miras.backends.pallas.loop import Kernels
from miras.backends.pallas.trace.hidden_units import Units, apart, together
from miras.backends.pallas.trace.live_state import Carried
from miras.backends.pallas.trace.operands import Given, own
from miras.backends.pallas.trace.program import Program


class Layout(NamedTuple):
    """How kernels go through tiles.

    Attributes:
        warps: of 32 threads, that work on a head.
        looped: through all in one call; or a call for each.
        units: of the memory, in blocks; None where whole weights fit.
    """

    warps: int
    looped: bool
    units: Units | None = None


def _forward(step: Carried, layout: Layout, given: Given, *, save: bool):
    """(memory, memory before the last tile, y, loss), and the memories before each tile."""
    program, units = _program(step.forward(given), layout), layout.units
    memories, *read = program.results
    given = _apart(given, units)
    run = functools.partial(_run_forward, program, layout.warps)
    if layout.looped:
        saved, y_loss = run(given, save=save)
        tiles = given.sizes()[0]
        after, before = ([x[n % x.shape[0]] for x in saved] for n in (tiles, tiles - 1))
    else:

        def tile(memories: tuple[list[Array], list[Array]], some: Any):
            _, before = memories
            part = given._replace(memory=before, streams=some[0], flags=some[1])
            between, y_loss = run(part)
            return (before, [x[1] for x in between]), (y_loss, before if save else None)

        start = given.memory, given.memory
        (before, after), (y_loss, saved) = lax.scan(tile, start, _one_by_one(given))
        y_loss = jax.tree.map(lambda x: x[:, 0], y_loss)
    after, before = (together(x, units, memories, 2) for x in (after, before))
    return (after, before, *together(y_loss, units, read, 3)), saved


def _backward(step: Carried, layout: Layout, given: Given, saved: list[Array], cotangents: Any):
    """The cotangents of constants, memory and streams."""
    d_memory, d_before, *d_read = cotangents
    given, units = given._replace(memory=d_memory), layout.units  # of its shapes
    program = _program(step.backward(given), layout)
    given, d_before, d_read = (
        _apart(given, units),
        apart(d_before, units, 2),
        apart(d_read, units, 3),
    )
    run = functools.partial(_run_backward, program, layout.warps)
    if layout.looped:
        found = run(given, saved, given.memory, d_before, d_read)
    else:

        def tile(carry: Any, some: Any):
            d_constants, d_memory, d_before = carry
            one, memory, d_read = some
            part = given._replace(streams=one[0], flags=one[1])
            of_tile, d_memory, d_streams = run(part, memory, d_memory, d_before, d_read)
            d_constants = [x + d for x, d in zip(d_constants, of_tile)]
            return (d_constants, d_memory, [jnp.zeros_like(x) for x in d_before]), d_streams

        start = [jnp.zeros_like(x) for x in given.constants], given.memory, d_before
        alone = jax.tree.map(lambda x: x[:, None], (saved, d_read))
        (d_constants, d_memory, _), d_streams = lax.scan(
            tile, start, (_one_by_one(given), *alone), reverse=True
        )
        found = d_constants, d_memory, jax.tree.map(lambda x: x[:, 0], d_streams)
    leads = enumerate(zip(found, program.results), start=1)
    return tuple(together(x, units, shapes, lead) for lead, (x, shapes) in leads)


def _program(program: Program, layout: Layout) -> Staged:
    if layout.units is None:
        return staged(program)
    found = in_blocks(program, layout.units, triton.LOWERED)
    assert isinstance(found, Staged), found  # `gpu_plan` has seen to it
    return found


def _apart(given: Given, units: Units | None) -> Given:
    """With units in blocks."""
    constants, memory, streams = (apart(x, units, n) for n, x in enumerate(given[:3], start=1))
    return Given(constants, memory, streams, given.flags)


def _one_by_one(given: Given) -> Any:
    return jax.tree.map(lambda x: x[:, None], (given.streams, given.flags))


def _run_forward(program: Staged, warps: int, given: Given, *, save: bool = False):
    """Memories between tiles, the n-th at n, or with save=False at n modulo 2; and (y, loss)."""
    one, sizes = given.of_one_tile(), given.sizes()
    heads, places = Heads(sizes), sizes[0] + 1 if save else 2
    memories, *y_loss = program.results
    inputs = {
        "captured": heads.whole(program.captured()),
        "flags": heads.flags(given.flags),
        "constants": heads.by_head(given.constants),
        "memory": heads.by_row(given.memory),
        "streams": heads.by_tile(given.streams),
    }
    outputs = {
        "y_loss": heads.by_tile(_every(apart(y_loss, program.units, 0), *sizes)),
        "between": heads.by_tile(_every(one.memory, places, *sizes[1:])),
        "scratch": heads.by_row(_every(program.scratch(), *sizes[1:])),
    }

    def kernel(inputs, outputs):
        constants, between = later(inputs["constants"]), outputs["between"]
        start = later(inputs["memory"])
        program.everywhere(memories, lambda n, *at: into(between[n], 0)(start[n](*at), *at))

        def tile(i, _):
            synchronise()
            memory = later(between, lax.rem(i, places))
            streams, flags = later(inputs["streams"], i), flags_at(inputs["flags"], i)
            writes = (
                [into(ref, lax.rem(i + 1, places)) for ref in between],
                *(into(ref, i) for ref in outputs["y_loss"]),
            )
            reads = later(inputs["captured"]), flags, constants, memory, streams
            program(triton.run, reads, writes, outputs["scratch"], synchronise)
            return 0

        lax.fori_loop(0, heads.tiles, tile, 0)

    out = heads.call(kernel, "miras_forward", warps, inputs, outputs)
    return tuple(_cut(out[key], outputs[key].shapes) for key in ("between", "y_loss"))


def _run_backward(program: Staged, warps: int, given: Given, saved, d_memory, d_before, d_read):
    """The cotangents of constants, memory and streams."""
    sizes, streams, (constants, memories, _) = given.sizes(), given.streams, program.results
    heads, one = Heads(sizes), given.of_one_tile()
    inputs = {
        "captured": heads.whole(program.captured()),
        "flags": heads.flags(given.flags),
        "constants": heads.by_head(given.constants),
        "streams": heads.by_tile(streams),
        "saved": heads.by_tile(saved),
        "d_memory": heads.by_row(d_memory),
        "d_before": heads.by_row(d_before),
        "d_read": heads.by_tile(d_read),
    }
    outputs = {
        "constants": heads.by_row(_every(one.constants, *sizes[1:])),
        "streams": heads.by_tile(own(streams, 0)),
        "between": heads.by_tile(_every(one.memory, 2, *sizes[1:])),
        "scratch": heads.by_row(_every(program.scratch(), *sizes[1:])),
    }

    def kernel(inputs, outputs):
        between, total = outputs["between"], outputs["constants"]
        end, before = later(inputs["d_memory"]), later(inputs["d_before"])
        so_far = later(total)
        program.everywhere(memories, lambda n, *at: into(between[n], 0)(end[n](*at), *at))
        program.everywhere(
            constants, lambda n, *at: into(total[n])(jnp.zeros_like(so_far[n](*at)), *at)
        )

        def tile(n, _):
            synchronise()
            i = heads.tiles - 1 - n

            def of_memory(ref: Any, before: Callable[..., Array]):
                write = into(ref, lax.rem(n + 1, 2))
                return lambda x, *at: write(x + jnp.where(n == 0, before(*at), 0), *at)

            def of_constant(ref: Any, so_far: Callable[..., Array]):
                return lambda x, *at: into(ref)(so_far(*at) + x, *at)

            writes = (
                [of_constant(*both) for both in zip(total, so_far)],
                [of_memory(*both) for both in zip(between, before)],
                jax.tree.map(lambda ref: into(ref, i), outputs["streams"]),
            )
            reads = (
                (later(inputs["captured"]), flags_at(inputs["flags"], i)),
                later(inputs["constants"]),
                (later(inputs["saved"], i), later(inputs["streams"], i)),
                (later(between, lax.rem(n, 2)), later(inputs["d_read"], i)),
            )
            program(triton.run, reads, writes, outputs["scratch"], synchronise)
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
