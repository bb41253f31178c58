"""Plan a GPU kernel: how a rule's tokens are laid out, or why there can be none."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import lax

from miras.backends.pallas.gpu.columns import independent, split_operands
from miras.backends.pallas.gpu.kernels import GpuLayout
from miras.backends.pallas.gpu.loop_fission import in_blocks, in_one_phase
from miras.backends.pallas.gpu.padded import LEAST
from miras.backends.pallas.gpu.phased_program import PhasedProgram
from miras.backends.pallas.gpu.registers import (
    WARPS,
    address_bytes,
    product_bytes,
    register_bytes,
)
from miras.backends.pallas.gpu.triton import TRITON
from miras.backends.pallas.trace.hidden_blocks import HiddenBlocks
from miras.backends.pallas.trace.jaxprs import equations
from miras.backends.pallas.trace.live_step import planned_live_step
from miras.backends.pallas.trace.operands import ScanOperands
from miras.backends.pallas.trace.program import Program
from miras.backends.pallas.trace.support import unsupported
from miras.rule.options import ScanOptions
from miras.rule.rule import Rule

# Operations that compute addresses, and how many of them a loop over tiles may have: it keeps their
# addresses in registers from tile to tile. Chosen on 2026-11-22 by the same benchmark.
MOVES = (
    *(lax.slice_p, lax.pad_p, lax.concatenate_p, lax.split_p, lax.gather_p),
    *(lax.dynamic_slice_p, lax.scatter_add_p),
)
MOST_MOVES = 16


class RegisterBudget(NamedTuple):
    """Bytes of values that may be live at once.

    As much again, and more, is taken by operands laid out for tensor cores, and by addresses, which
    loops over tiles and blocks keep. Chosen on 2026-12-01 by `python -m benchmarks.gpu_static`
    (H200, jax 0.10.2): within these budgets no kernel spills more than 256 bytes a thread.

    Attributes:
        one: in kernels of one tile, in the order in which the tile is traced.
        all: in kernels of all tiles.
        blocks: in kernels of one tile, in blocks of the hidden dimension, and of a half of the
            addresses of what these read and write. Compilers keep many addresses from loop to loop,
            and compute the others again.
        block: hidden units of a block: with more, kernels of most rules spill.
        tile: tokens of a tile at most, a power of two.
        columns: value columns of a head, where a head is split by its columns.
    """

    one: int
    all: int
    blocks: int
    block: int = 16
    tile: int = LEAST
    columns: int = LEAST

    @classmethod
    def at(cls, width: int) -> "RegisterBudget":
        """For heads of this width."""
        if width <= LEAST:  # every warp has a copy of most of their products
            return cls(80 * 2**10, 78 * 2**10, 375 * 2**10)
        if width <= 64:
            return cls(135 * 2**10, 118 * 2**10, 250 * 2**10)
        return cls(135 * 2**10, 96 * 2**10, 250 * 2**10)


class GpuPlan(NamedTuple):
    """How tokens are laid out.

    Attributes:
        tile: tokens of a tile, a divisor of the chunk.
        columns: heads that each head is split into, see `columns`.
        layout: how the kernels go through the tiles.
    """

    tile: int
    columns: int
    layout: GpuLayout


def plan_gpu_kernel(
    rule: Rule,
    options: ScanOptions,
    operands: Callable[[int], Any],
    width: int,
    budget: RegisterBudget,
) -> GpuPlan | str:
    """The plan for a call, or a sentence that says why no kernel can take it.

    Args:
        rule: the four parts.
        options: of the call.
        operands: from the tokens of a tile to the shapes of what the loop is called with.
        width: of values.
        budget: of registers.
    """
    tile = tile_of(options.chunk, budget)
    splits = independent(rule) and width % budget.columns == 0
    columns = width // budget.columns if splits else 1
    split = jax.eval_shape(functools.partial(split_operands, columns), *operands(tile))
    step, live = planned_live_step(rule, options, split)
    programs = step.forward(live), step.backward(live)
    for program in programs:
        reason = unsupported(rule, program, TRITON)
        if reason is not None:
            return reason
    whole = max(live_bytes(in_one_phase(program, looped=True)) for program in programs)
    blocks = None
    if whole > budget.one:
        blocks = _blocks(live, programs, budget)
        if isinstance(blocks, str):
            return (
                f"a tile of {tile} tokens of this rule holds {whole / 2**10:.0f} KiB at once on a "
                f"GPU, where {budget.one / 2**10:.0f} KiB fit into registers, and {blocks}"
            )
    looped = whole <= budget.all and max(map(_moves, programs)) <= MOST_MOVES
    return GpuPlan(tile, columns, GpuLayout(WARPS, looped, blocks))


def _blocks(
    operands: ScanOperands, programs: tuple[Program, ...], budget: RegisterBudget
) -> HiddenBlocks | str:
    """Blocks of the hidden dimension in which the programs fit, or why there are none."""
    matrices = [x.shape for x in operands.tile_shapes().memory if len(x.shape) > 1]
    common = set.intersection(*map(set, matrices)) if matrices else set()
    count, block = max(common, default=0), budget.block
    if not all(shape.count(count) == 1 for shape in matrices) or count % block or count <= block:
        return f"there are no blocks of {block} hidden units to take it apart"
    blocks, needed = HiddenBlocks(count, block), 0
    for program in programs:
        found = in_blocks(program, blocks)
        if isinstance(found, str):
            return found
        needed = max(needed, bytes_in_blocks(found))
    if needed > budget.blocks:
        return (
            f"{needed / 2**10:.0f} KiB with addresses in blocks of {block} of its {count} hidden "
            f"units, where {budget.blocks / 2**10:.0f} KiB do"
        )
    return blocks


def tile_of(chunk: int, budget: RegisterBudget) -> int:
    """Tokens of a tile of a chunk."""
    return math.gcd(chunk, budget.tile)


def live_bytes(program: PhasedProgram) -> int:
    """Bytes of all values that are live at the same equation of a tile, at most."""
    return program.peak_live_size(register_bytes)


def bytes_in_blocks(program: PhasedProgram) -> int:
    """Bytes that a program in blocks takes: its live values, as products, and some addresses."""
    return program.peak_live_size(product_bytes) + program.addresses(address_bytes) // 2


def _moves(program: Program) -> int:
    return sum(eqn.primitive in MOVES for eqn in equations(program.jaxpr))
