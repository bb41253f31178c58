"""Plan: how a rule's tokens are laid out for a TPU kernel, or why there can be none."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from miras.backends.pallas.target import LANES, ROWS
from miras.backends.pallas.tpu.grid import Layout
from miras.backends.pallas.tpu.mosaic import MOSAIC
from miras.backends.pallas.trace.live_state import Carried, carried_by
from miras.backends.pallas.trace.operands import Given
from miras.backends.pallas.trace.program import Program, peak
from miras.backends.pallas.trace.support import unsupported
from miras.backends.xla.loop import checkpoint_interval
from miras.engine.step import in_pairs
from miras.rule.options import SaveEvery, ScanOptions
from miras.rule.rule import Rule

TOKENS = 64  # that a grid step goes through at least, so that its overhead is small
BESIDE = 4  # heads whose steps fill each other's gaps; more gain nothing
EQUATIONS = 4000  # of all of them
LARGE = 2**16  # numbers of a head's memory from which the compiler's other scheduler does better
PAIRED = 2**17  # from which two chunks at once pay
SAVED = 2**30  # bytes of memories that a call of `scan` keeps for the backward pass


class Plan(NamedTuple):
    """How tokens are laid out.

    Attributes:
        tile: tokens of a tile, a divisor of the chunk.
        layout: how the kernel goes through them.
    """

    tile: int
    layout: Layout


def plan(
    rule: Rule,
    options: ScanOptions,
    operands: Callable[[int], Any],
    capacity: int,
) -> Plan | str:
    """The plan for a call, or a sentence that says why no kernel can take it.

    Args:
        rule: the four parts.
        options: of the call.
        operands: from the tokens of a tile to the shapes of what the loop is called with.
        capacity: bytes of VMEM.
    """
    chunk, save_every = options.chunk, options.save_every
    if chunk % ROWS:
        return f"chunk={chunk} is no multiple of {ROWS}, the rows of a TPU's registers"
    room = needed = 0
    for tile in _tiles(chunk):
        room = capacity * 7 // 8
        if rule.forms_weights:  # what the compiler spills comes on top: more, the more tokens
            room = capacity // (3 if tile == 1 else 16)
        step, given = carried_by(rule, options, operands(tile))
        programs = step.forward(given), step.backward(given)
        for program in programs:
            reason = unsupported(rule, program, MOSAIC)
            if reason is not None:
                return reason
        needed = max(_vmem(program) for program in programs)
        if needed <= room:
            heads = _beside(given.streams.q.shape[2], programs, max(1, room // (2 * needed)))
            wanted = None if save_every is None else (save_every, chunk // tile)
            group = _group(given, tile, capacity // 8 // heads, wanted)
            many = _numbers(given.of_one_tile().memory) >= LARGE
            large = many and not rule.forms_weights  # whose values fill VMEM as it is
            paired = 0
            if tile == chunk and _pays_in_pairs(rule, options, given):
                paired = _paired(step, given, room)
            return Plan(tile, Layout(group, capacity * 15 // 16, heads, large, paired))
    return (
        f"a tile of {tile} tokens of this rule needs {needed / 2**20:.0f} MiB of VMEM, "
        f"more than the {room / 2**20:.0f} MiB that can be planned with"
    )


def _pays_in_pairs(rule: Rule, options: ScanOptions, given: Given) -> bool:
    """Whether two chunks at once pay: their momentum is large, and may be formed once for both."""
    begins_anew = given.flags.chunk_start is not None or given.flags.reset is not None
    if begins_anew or not in_pairs(rule, options):
        return False
    return _numbers(given.of_one_tile().memory) >= PAIRED


def _paired(step: Carried, given: Given, room: int) -> int:
    """Heads of two chunks side by side; 0 where not even one fits."""
    program = step.forward_pair(given)
    needed = _vmem(program)
    return 0 if needed > room else _beside(given.streams.q.shape[2], [program], room // needed)


def _numbers(memory: Any) -> int:
    return sum(math.prod(x.shape) for x in jax.tree.leaves(memory))


def _tiles(chunk: int) -> Iterator[int]:
    """The chunk, its half, and so on: rules that form every token's weights need small ones."""
    yield chunk
    while chunk % 2 == 0:
        chunk //= 2
        yield chunk


def _beside(heads: int, programs: Sequence[Program], fit: int) -> int:
    """Heads to compute side by side: as many as fit, and as the compiler takes in good time."""
    equations = max(len(program.jaxpr.eqns) for program in programs)
    most = min(BESIDE, fit, EQUATIONS // equations)
    return max((n for n in range(1, most + 1) if heads % n == 0), default=1)


def _group(given: Given, tile: int, room: int, asked: tuple[SaveEvery, int] | None = None) -> int:
    """Enough tiles to make a grid step worth its overhead, and to save few memories; if they fit.

    Args:
        given: what the kernel is given.
        tile: C.
        room: bytes of VMEM for the memories between a group's tiles.
        asked: what the user wants, and tiles of a chunk.
    """
    tiles = given.streams.q.shape[0]
    own = sum(_bytes(x) for x in jax.tree.leaves(given.of_one_tile().memory))
    if asked is not None:
        save_every, parts = asked
        return max(1, min(checkpoint_interval(save_every, tiles, parts), room // own))
    leaves = jax.tree.leaves(given.memory)
    saved = tiles * sum(math.prod(x.shape) * x.dtype.itemsize for x in leaves)
    wanted = max(math.ceil(saved / SAVED), TOKENS // tile)
    return max(1, min(tiles, wanted, room // own))


def _vmem(program: Program) -> int:
    """About how much a kernel needs: inputs and results twice, one of them on its way."""
    jaxpr = program.jaxpr
    moved = [atom.aval for atom in (*jaxpr.constvars, *jaxpr.invars, *jaxpr.outvars)]
    return peak(jaxpr, _bytes) + 2 * sum(map(_bytes, moved))


def _bytes(aval) -> int:
    """About those of a value in registers: a matrix or its transpose, whichever takes fewer."""
    *batch, rows, lanes = (1, 1, *aval.shape)
    registers = min(-(-r // ROWS) * -(-c // LANES) for r, c in ((rows, lanes), (lanes, rows)))
    return math.prod(batch) * registers * ROWS * LANES * max(aval.dtype.itemsize, 4)
