"""Plan: how a rule's tokens are laid out for a TPU kernel, or why there can be none."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from miras.kernels.given import Given, backward_program, forward_program, given_by
from miras.kernels.grid import Layout
from miras.kernels.mosaic import MOSAIC
from miras.kernels.program import Program, peak
from miras.kernels.support import unsupported
from miras.rule import Rule

ROWS = 8  # of a register; tiles are multiples of it
TOKENS = 128  # that a grid step goes through at least, so that its overhead is small
SAVED = 2**30  # bytes of memories that a call of `scan` keeps for the backward pass


class Plan(NamedTuple):
    """How tokens are laid out.

    Attributes:
        tile: tokens of a tile, a divisor of the chunk.
        layout: how the kernel goes through them.
    """

    tile: int
    layout: Layout


def plan(rule: Rule, run: Callable[..., Any], chunk: int, capacity: int) -> Plan | str:
    """The plan for a call, or a sentence that says why no kernel can take it.

    Args:
        rule: the four parts.
        run: `xla.run` with all its arguments but `loop` and `tile`.
        chunk: tokens of a chunk.
        capacity: bytes of VMEM.
    """
    if chunk % ROWS:
        return f"chunk={chunk} is no multiple of {ROWS}, the rows of a TPU's registers"
    # What the compiler spills comes on top: most of all where every token's weights are formed.
    room = capacity // (16 if rule.forms_weights else 2)
    needed = 0
    for tile in _tiles(chunk):
        step, given = given_by(run, tile)
        programs = [make(step, given) for make in (forward_program, backward_program)]
        for program in programs:
            reason = unsupported(rule, program, MOSAIC)
            if reason is not None:
                return reason
        needed = max(_vmem(program) for program in programs)
        if needed <= room:
            group = _group(given, tile, capacity // 8)
            return Plan(tile, Layout(group, capacity * 3 // 4))
    return (
        f"a tile of {tile} tokens of this rule needs {needed / 2**20:.0f} MiB of VMEM, "
        f"more than the {room / 2**20:.0f} MiB that can be planned with"
    )


def _tiles(chunk: int) -> Iterator[int]:
    """The chunk, its half, and so on: rules that form every token's weights need small ones."""
    yield chunk
    while chunk % 2 == 0:
        chunk //= 2
        yield chunk


def _group(given: Given, tile: int, room: int) -> int:
    """Enough tiles to make a grid step worth its overhead, and to save few memories; if they fit.

    Args:
        given: what the kernel is given.
        tile: C.
        room: bytes of VMEM for the memories between a group's tiles.
    """
    tiles = given.streams.q.shape[0]
    leaves = jax.tree.leaves(given.memory)
    saved = tiles * sum(math.prod(x.shape) * x.dtype.itemsize for x in leaves)
    own = sum(_bytes(x) for x in jax.tree.leaves(given.of_one_tile().memory))
    wanted = max(math.ceil(saved / SAVED), TOKENS // tile)
    return max(1, min(tiles, wanted, room // own))


def _vmem(program: Program) -> int:
    """About how much a kernel needs: inputs and results twice, one of them on its way."""
    jaxpr = program.jaxpr
    moved = [atom.aval for atom in (*jaxpr.constvars, *jaxpr.invars, *jaxpr.outvars)]
    return peak(jaxpr, _bytes) + 2 * sum(map(_bytes, moved))


def _bytes(aval) -> int:
    """Of a value in registers of 8 rows and 128 lanes."""
    shape = (1, 1, *aval.shape)
    rows, lanes = -(-shape[-2] // ROWS) * ROWS, -(-shape[-1] // 128) * 128
    return math.prod(shape[:-2]) * rows * lanes * max(aval.dtype.itemsize, 4)
