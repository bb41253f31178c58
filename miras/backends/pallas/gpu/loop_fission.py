"""Loop fission: in which phase of a `PhasedProgram` each equation of a program is."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import JaxprEqn, Literal

from miras.backends.pallas.gpu.phased_program import (
    BlockLoop,
    Phase,
    PhasedProgram,
    variable_shapes,
)
from miras.backends.pallas.gpu.registers import register_bytes
from miras.backends.pallas.gpu.sinking import sunk
from miras.backends.pallas.gpu.triton import is_elementwise
from miras.backends.pallas.trace.hidden_blocks import (
    ACCUMULATORS,
    OF_BLOCK,
    BlockContext,
    HiddenBlocks,
    is_hidden,
    reduces_hidden,
    unsplittable,
)
from miras.backends.pallas.trace.jaxprs import bind, evaluate, source_of, variables
from miras.backends.pallas.trace.liveness import live_equations
from miras.backends.pallas.trace.program import Program, trace
from miras.backends.pallas.trace.shared_lowerings import CALLS


def in_one_phase(program: Program, *, looped: bool = False) -> PhasedProgram:
    """A tile's program in one phase, without blocks.

    Args:
        program: of a tile.
        looped: whether the kernel goes through all tiles. Then the program is small, and its
            equations and writes keep their order; else values live as short as they can.
    """
    phased = _Graph(_inlined(program), None, sink=not looped).in_phases()
    return dataclasses.replace(phased, eager=not looped)


def in_blocks(program: Program, blocks: HiddenBlocks) -> PhasedProgram | str:
    """A tile's program in phases, or a sentence that says why it cannot be computed in blocks."""
    flat = _inlined(program)
    reasons = (unsplittable(eqn, blocks, is_elementwise) for eqn in flat.jaxpr.eqns)
    reason = next(filter(None, reasons), None)
    if reason is not None:
        return reason
    return _Graph(flat, blocks).in_phases()


def _inlined(program: Program) -> Program:
    """The program with its calls inlined; arrays that it had captured are its first arguments."""
    captured = len(program.constants)

    def flat(*args):
        return evaluate(CALLS, program.jaxpr, args[:captured], *args[captured:])

    flat = trace(flat, *variable_shapes((*program.jaxpr.constvars, *program.jaxpr.invars)))
    assert not flat.constants
    return program._replace(jaxpr=flat.jaxpr)


class _Graph:
    """A program's live equations, and which of them have the hidden dimension.

    A reduction of the hidden dimension ends with its phase's loop: its readers are in a later one.
    """

    def __init__(self, program: Program, blocks: HiddenBlocks | None, *, sink: bool = False):
        self.program, self.blocks = program, blocks
        jaxpr = program.jaxpr
        self.results = dict.fromkeys(variables(jaxpr.outvars))
        self.eqns = live_equations(jaxpr.eqns, list(self.results))
        if sink:
            self.eqns = sunk(self.eqns, register_bytes)
        self.reductions = [reduces_hidden(eqn, blocks) for eqn in self.eqns]
        self.in_loops = [
            any(is_hidden(x, blocks) for x in (*eqn.invars, *eqn.outvars)) for eqn in self.eqns
        ]
        self.producer = {var: n for n, eqn in enumerate(self.eqns) for var in eqn.outvars}
        self.readers: dict[Any, list[int]] = {}
        for n, eqn in enumerate(self.eqns):
            for var in variables(eqn.invars):
                self.readers.setdefault(var, []).append(n)

    def in_phases(self) -> PhasedProgram:
        """With each equation in the first phase in which it can be."""
        phase: list[int] = []
        for eqn in self.eqns:
            before = (self._known(v, phase) for v in variables(eqn.invars) if v in self.producer)
            phase.append(max(before, default=0))
        spilled = [var for var in self.producer if self._is_spilled(var, phase)]
        loop = max((p for p, has in zip(phase, self.in_loops) if has), default=0)
        last = max((p + ends for p, ends in zip(phase, self.reductions)), default=0)
        phases = [self._phase(n, phase, set(spilled), end=n == loop) for n in range(last + 1)]
        return PhasedProgram(self.blocks, self.program, tuple(phases), spilled)

    def _known(self, var: Any, phase: Sequence[int]) -> int:
        """The phase from whose start, or in which, a variable is known."""
        n = self.producer[var]
        return phase[n] + self.reductions[n]

    def _is_spilled(self, var: Any, phase: Sequence[int]) -> bool:
        """Whether a later phase reads an array, or a loop one without the hidden dimension.

        What a loop takes from registers is there in as many copies as its products want.
        """
        known, hidden = self._known(var, phase), is_hidden(var, self.blocks)
        readers = self.readers.get(var, ())
        read = any(phase[n] > known or (self.in_loops[n] and not hidden) for n in readers)
        return read and var.aval.shape != ()

    def _phase(self, number: int, phase: Sequence[int], spilled: set[Any], *, end: bool) -> Phase:
        """One phase; the last with a loop also copies arguments that are results."""
        own = [n for n, p in enumerate(phase) if p == number]
        small = [self.eqns[n] for n in own if not self.in_loops[n]]
        large = [self.eqns[n] for n in own if self.in_loops[n]]

        def read(var: Any) -> bool:
            """By others than `small`."""
            readers = self.readers.get(var, ())
            return any(phase[n] > number or self.in_loops[n] for n in readers)

        results = [v for eqn in small for v in eqn.outvars if v in self.results or read(v)]
        operands = _free_variables(small)
        totals = [eqn.outvars[0] for eqn in large if reduces_hidden(eqn, self.blocks)]
        made = [v for eqn in large for v in eqn.outvars if is_hidden(v, self.blocks)]
        written = [v for v in made if v in spilled or v in self.results]
        if end:
            hidden = (v for v in self.results if is_hidden(v, self.blocks))
            written += [v for v in hidden if v not in self.producer]
        loops = [self._loop(large, wanted) for wanted in (totals, written) if wanted]
        return Phase(_whole(small, operands, results), operands, results, loops)

    def _loop(self, eqns: Sequence[JaxprEqn], wanted: Sequence[Any]) -> BlockLoop:
        assert self.blocks is not None
        eqns = live_equations(eqns, wanted)
        made = {var for eqn in eqns for var in eqn.outvars}
        read = list(dict.fromkeys((*_free_variables(eqns), *(v for v in wanted if v not in made))))
        invariants = [var for var in read if not is_hidden(var, self.blocks)]
        hidden = [var for var in read if is_hidden(var, self.blocks)]
        totals = [var for var in wanted if not is_hidden(var, self.blocks)]
        reduced = [(v, ACCUMULATORS[self.eqns[self.producer[v]].primitive]) for v in totals]
        program = _block(eqns, self.blocks, invariants, hidden, wanted)
        return BlockLoop(program, invariants, hidden, reduced, list(wanted[len(totals) :]))


def _free_variables(eqns: Sequence[JaxprEqn]) -> list[Any]:
    """The variables that equations read and do not define."""
    made = {var for eqn in eqns for var in eqn.outvars}
    used = (var for eqn in eqns for var in variables(eqn.invars))
    return [var for var in dict.fromkeys(used) if var not in made]


def _whole(eqns: Sequence[JaxprEqn], operands: Sequence[Any], results: Sequence[Any]) -> Program:
    def whole(*args):
        values = dict(zip(operands, args, strict=True))
        for eqn in eqns:
            with source_of(eqn)():
                values.update(zip(eqn.outvars, bind(eqn, _inputs(eqn, values)), strict=True))
        return [values[var] for var in results]

    return trace(whole, *variable_shapes(operands))


def _block(
    eqns: Sequence[JaxprEqn],
    blocks: HiddenBlocks,
    invariants: Sequence[Any],
    hidden: Sequence[Any],
    wanted: Sequence[Any],
) -> Program:
    def of_block(i, *args):
        values = dict(zip([*invariants, *hidden], args, strict=True))
        for eqn in eqns:
            with source_of(eqn)():
                out = OF_BLOCK(eqn, _inputs(eqn, values), BlockContext(blocks, i))
            values.update(zip(eqn.outvars, out, strict=True))
        return [values[var] for var in wanted]

    number = jax.ShapeDtypeStruct((), jnp.int32)
    shapes = (*variable_shapes(invariants), *variable_shapes(hidden, blocks.block_shape))
    return trace(of_block, number, *shapes)


def _inputs(eqn: JaxprEqn, values: dict[Any, Any]) -> list[Any]:
    return [atom.val if isinstance(atom, Literal) else values[atom] for atom in eqn.invars]
