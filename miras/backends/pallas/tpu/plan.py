"""Plan a TPU kernel: how a rule's tokens are laid out, or why there can be none."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from miras.backends.pallas.target import LANES, ROWS
from miras.backends.pallas.tpu.grid import TpuLayout
from miras.backends.pallas.tpu.lowerings import MOSAIC
from miras.backends.pallas.trace.live_step import LiveStep, planned_live_step
from miras.backends.pallas.trace.liveness import peak_live_size
from miras.backends.pallas.trace.operands import ScanOperands
from miras.backends.pallas.trace.program import Program
from miras.backends.pallas.trace.support import unsupported
from miras.backends.xla.loop import checkpoint_interval
from miras.rule.options import SaveEvery, ScanOptions
from miras.rule.rule import Rule


class TpuLimits(NamedTuple):
    """What plans are chosen by.

    The defaults were chosen on 2026-11-21 and 22 by `python -m benchmarks.tpu_schedule`, for a v5e
    with jax 0.10.2 and libtpu 0.0.42, with the fewest bundles in nearly every row; but for
    `saved`, which bounds what training keeps of a layer.

    Attributes:
        tokens: that a grid step goes through at least, so that its overhead is small.
        heads: interleaved in a grid step at most; more fill no further gaps.
        equations: of all heads of a grid step at most: compile time grows with their number.
        large: entries of a head's memory from which the compiler's other scheduler does better.
        paired: entries from which two chunks at once pay, see `engine.joined_chunks`.
        saved: bytes of memories that a call of `scan` saves for the backward pass, about.
        tile: tokens of a tile at most; None for the chunk.
        vmem: bytes of VMEM; None for those of the device.
        any_order: whether the compiler is told that heads may run in any order. The interpreter
            under `vmap`, which adds a dimension to the grid, takes no such hint.
    """

    tokens: int = 64
    heads: int = 4
    equations: int = 4000
    large: int = 2**16
    paired: int = 2**17
    saved: int = 2**29
    tile: int | None = None
    vmem: int | None = None
    any_order: bool = True


LIMITS = TpuLimits()

# Share of VMEM that values of a tile may take by the estimate of `_vmem_bytes`; the compiler's own
# scratch and what it spills come on top. Rules that form every token's weights spill more, the more
# tokens a tile has. Chosen on 2026-11-21: with these all presets compile for v5e, v5p and v6e at a
# width of 64 (`pytest tests/backends/pallas/tpu/test_compiles.py`, libtpu 0.0.42).
VALUES = 7 / 8
VALUES_OF_FORMED_TOKEN = 1 / 3
VALUES_OF_FORMED_TILE = 1 / 16
BETWEEN = 1 / 8  # of VMEM, for the memories between the tiles of a group
SCOPED = 15 / 16  # of VMEM, that the compiler may use


class TpuPlan(NamedTuple):
    """How tokens are laid out.

    Attributes:
        tile: tokens of a tile, a divisor of the chunk.
        layout: how the kernel goes through them.
    """

    tile: int
    layout: TpuLayout


def plan_tpu_kernel(
    rule: Rule,
    options: ScanOptions,
    operands: Callable[[int], Any],
    capacity: int,
    limits: TpuLimits = LIMITS,
) -> TpuPlan | str:
    """The plan for a call, or a sentence that says why no kernel can take it.

    Args:
        rule: the four parts.
        options: of the call.
        operands: from the tokens of a tile to the shapes of what the loop is called with.
        capacity: bytes of VMEM.
        limits: what the plan is chosen by.
    """
    chunk, save_every = options.chunk, options.save_every
    if chunk % ROWS:
        return f"chunk={chunk} is no multiple of {ROWS}, the rows of a TPU's registers"
    room = needed = 0
    for tile in _tiles(limits.tile or chunk):
        share = VALUES
        if rule.forms_weights:
            share = VALUES_OF_FORMED_TOKEN if tile == 1 else VALUES_OF_FORMED_TILE
        room = int(capacity * share)
        step, live = planned_live_step(rule, options, operands(tile))
        programs = step.forward(live), step.backward(live)
        for program in programs:
            reason = unsupported(rule, program, MOSAIC)
            if reason is not None:
                return reason
        needed = max(_vmem_bytes(program) for program in programs)
        if needed <= room:
            heads = _interleaved(live, programs, max(1, room // (2 * needed)), limits)
            between = int(capacity * BETWEEN) // heads
            if save_every is None:
                group = _group(live, tile, between, limits)
            else:
                group = _group_asked_for(live, between, save_every, chunk // tile)
            many = _entries(live.tile_shapes().memory) >= limits.large
            large = many and not rule.forms_weights  # whose values fill VMEM as it is
            paired = 0
            if tile == chunk and _pays_in_pairs(step, live, limits):
                paired = _paired(step, live, room, limits)
            scoped = int(capacity * SCOPED)
            layout = TpuLayout(group, scoped, heads, large, paired, limits.any_order)
            return TpuPlan(tile, layout)
    return (
        f"a tile of {tile} tokens of this rule needs {needed / 2**20:.0f} MiB of VMEM, "
        f"more than the {room / 2**20:.0f} MiB that can be planned with"
    )


def _pays_in_pairs(step: LiveStep, operands: ScanOperands, limits: TpuLimits) -> bool:
    """Whether two chunks at once pay: their momentum is large, and may be formed once for both."""
    begins_anew = operands.flags.chunk_start is not None or operands.flags.reset is not None
    if begins_anew or step.joined is None:
        return False
    return _entries(operands.tile_shapes().memory) >= limits.paired


def _paired(step: LiveStep, operands: ScanOperands, room: int, limits: TpuLimits) -> int:
    """Heads of two chunks to interleave; 0 where not even one fits."""
    program = step.forward_pair(operands)
    needed = _vmem_bytes(program)
    return 0 if needed > room else _interleaved(operands, [program], room // needed, limits)


def _entries(memory: Any) -> int:
    return sum(math.prod(x.shape) for x in jax.tree.leaves(memory))


def _tiles(most: int) -> Iterator[int]:
    """The chunk, its half, and so on: rules that form every token's weights need small ones."""
    yield most
    while most % 2 == 0:
        most //= 2
        yield most


def _interleaved(
    operands: ScanOperands, programs: Sequence[Program], fit: int, limits: TpuLimits
) -> int:
    """Heads to interleave: as many as fit, and as the compiler takes in good time."""
    heads = operands.streams.q.shape[2]
    equations = max(len(program.jaxpr.eqns) for program in programs)
    most = min(limits.heads, fit, limits.equations // equations)
    return max((n for n in range(1, most + 1) if heads % n == 0), default=1)


def _group(operands: ScanOperands, tile: int, room: int, limits: TpuLimits) -> int:
    """Enough tiles to make a grid step worth its overhead, and to save few memories; if they fit.

    Args:
        operands: of the kernel.
        tile: C.
        room: bytes of VMEM for the memories between a group's tiles.
        limits: what the plan is chosen by.
    """
    tiles = operands.streams.q.shape[0]
    leaves = jax.tree.leaves(operands.memory)
    saved = tiles * sum(math.prod(x.shape) * x.dtype.itemsize for x in leaves)
    wanted = max(math.ceil(saved / limits.saved), limits.tokens // tile)
    return max(1, min(tiles, wanted, room // _memory_bytes(operands)))


def _group_asked_for(operands: ScanOperands, room: int, save_every: SaveEvery, parts: int) -> int:
    """The tiles from one saved memory to the next that the caller wants, if they fit.

    Args:
        operands: of the kernel.
        room: bytes of VMEM for the memories between a group's tiles.
        save_every: chunks.
        parts: tiles of a chunk.
    """
    wanted = checkpoint_interval(save_every, operands.streams.q.shape[0], parts)
    return max(1, min(wanted, room // _memory_bytes(operands)))


def _memory_bytes(operands: ScanOperands) -> int:
    return sum(_register_bytes(x) for x in jax.tree.leaves(operands.tile_shapes().memory))


def _vmem_bytes(program: Program) -> int:
    """About how much a kernel needs: its values, inputs and results twice as they are copied."""
    jaxpr = program.jaxpr
    moved = [atom.aval for atom in (*jaxpr.constvars, *jaxpr.invars, *jaxpr.outvars)]
    return peak_live_size(jaxpr, _register_bytes) + 2 * sum(map(_register_bytes, moved))


def _register_bytes(aval) -> int:
    """About those of a value in registers: a matrix or its transpose, whichever takes fewer."""
    *batch, rows, lanes = (1, 1, *aval.shape)
    registers = min(-(-r // ROWS) * -(-c // LANES) for r, c in ((rows, lanes), (lanes, rows)))
    return math.prod(batch) * registers * ROWS * LANES * max(aval.dtype.itemsize, 4)
