"""Stages: in which stage of a program each of its equations is, see `staged`."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import JaxprEqn, Literal

from miras.backends.pallas.gpu.staged import Loop, Stage, Staged, shapes
from miras.backends.pallas.trace.hidden_units import Units, bind_block, has_units, refused, sums
from miras.backends.pallas.trace.program import (
    Program,
    bind,
    evaluate,
    of_use,
    rewritten,
    trace,
    variables,
)
from miras.backends.pallas.trace.rewrites import CALLS


def staged(program: Program) -> Staged:
    """A tile's program in one stage, without blocks."""
    return _Graph(_without_calls(program), None).staged()


def in_blocks(program: Program, units: Units, entrywise: frozenset[str]) -> Staged | str:
    """A tile's program in stages, or a sentence that says why it cannot be had in blocks.

    Args:
        program: of a tile.
        units: in which blocks.
        entrywise: operations that go entry by entry.
    """
    flat = _without_calls(program)
    reasons = (refused(eqn, units, entrywise) for eqn in flat.jaxpr.eqns)
    reason = next(filter(None, reasons), None)
    if reason is not None:
        return reason
    return _Graph(flat, units).staged()


def _without_calls(program: Program) -> Program:
    """The program with what it calls in place; what it had captured are its first arguments."""
    captured = len(program.constants)

    def run(*args):
        call = functools.partial(rewritten, CALLS)
        return evaluate(call, program.jaxpr, args[:captured], *args[captured:])

    flat = trace(run, *shapes((*program.jaxpr.constvars, *program.jaxpr.invars)))
    assert not flat.constants
    return program._replace(jaxpr=flat.jaxpr)


class _Graph:
    """A program's equations that are of use, and which of them has units.

    What sums over units ends with its stage's loop: what reads that is in a later stage.
    """

    def __init__(self, program: Program, units: Units | None):
        self.program, self.units = program, units
        jaxpr = program.jaxpr
        self.results = dict.fromkeys(variables(jaxpr.outvars))
        self.eqns = of_use(jaxpr.eqns, list(self.results))
        self.sums = [sums(eqn, units) for eqn in self.eqns]
        self.in_blocks = [
            any(has_units(x, units) for x in (*eqn.invars, *eqn.outvars)) for eqn in self.eqns
        ]
        self.made = {var: n for n, eqn in enumerate(self.eqns) for var in eqn.outvars}
        self.readers: dict[Any, list[int]] = {}
        for n, eqn in enumerate(self.eqns):
            for var in variables(eqn.invars):
                self.readers.setdefault(var, []).append(n)

    def staged(self) -> Staged:
        """With each equation in the first stage in which it can be."""
        place: list[int] = []
        for eqn in self.eqns:
            before = (self._known(v, place) for v in variables(eqn.invars) if v in self.made)
            place.append(max(before, default=0))
        kept = [var for var in self.made if self._is_kept(var, place)]
        loop = max((p for p, has in zip(place, self.in_blocks) if has), default=0)
        last = max((p + ends for p, ends in zip(place, self.sums)), default=0)
        stages = [self._stage(n, place, set(kept), end=n == loop) for n in range(last + 1)]
        return Staged(self.units, self.program, tuple(stages), kept)

    def _known(self, var: Any, place: Sequence[int]) -> int:
        """The stage from whose start, or in which, a variable is known."""
        n = self.made[var]
        return place[n] + self.sums[n]

    def _is_kept(self, var: Any, place: Sequence[int]) -> bool:
        """Whether a later stage reads an array, or a loop one without units.

        What a loop takes from registers is there in as many copies as its products want.
        """
        stage, large = self._known(var, place), has_units(var, self.units)
        readers = self.readers.get(var, ())
        read = any(place[n] > stage or (self.in_blocks[n] and not large) for n in readers)
        return read and var.aval.shape != ()

    def _stage(self, number: int, place: Sequence[int], kept: set[Any], *, end: bool) -> Stage:
        """One stage; the last with a loop also hands on arguments that are results."""
        own = [n for n, p in enumerate(place) if p == number]
        small = [self.eqns[n] for n in own if not self.in_blocks[n]]
        large = [self.eqns[n] for n in own if self.in_blocks[n]]

        def read(var: Any) -> bool:
            """By others than `small`."""
            readers = self.readers.get(var, ())
            return any(place[n] > number or self.in_blocks[n] for n in readers)

        gives = [v for eqn in small for v in eqn.outvars if v in self.results or read(v)]
        needs = _ends(small)
        totals = [eqn.outvars[0] for eqn in large if sums(eqn, self.units)]
        made = [v for eqn in large for v in eqn.outvars if has_units(v, self.units)]
        keeps = [v for v in made if v in kept or v in self.results]
        if end:
            with_units = (v for v in self.results if has_units(v, self.units))
            keeps += [v for v in with_units if v not in self.made]
        loops = [self._loop(large, wanted) for wanted in (totals, keeps) if wanted]
        return Stage(_whole(small, needs, gives), needs, gives, loops)

    def _loop(self, eqns: Sequence[JaxprEqn], wanted: Sequence[Any]) -> Loop:
        assert self.units is not None
        eqns = of_use(eqns, wanted)
        made = {var for eqn in eqns for var in eqn.outvars}
        taken = list(dict.fromkeys((*_ends(eqns), *(v for v in wanted if v not in made))))
        takes = [var for var in taken if not has_units(var, self.units)]
        reads = [var for var in taken if has_units(var, self.units)]
        totals = [var for var in wanted if not has_units(var, self.units)]
        named = [(var, self.eqns[self.made[var]].primitive.name) for var in totals]
        program = _block(eqns, self.units, takes, reads, wanted)
        return Loop(program, takes, reads, named, list(wanted[len(totals) :]))


def _ends(eqns: Sequence[JaxprEqn]) -> list[Any]:
    """The variables that equations need of others."""
    made = {var for eqn in eqns for var in eqn.outvars}
    used = (var for eqn in eqns for var in variables(eqn.invars))
    return [var for var in dict.fromkeys(used) if var not in made]


def _whole(eqns: Sequence[JaxprEqn], needs: Sequence[Any], gives: Sequence[Any]) -> Program:
    def run(*args):
        values = dict(zip(needs, args, strict=True))
        for eqn in eqns:
            values.update(zip(eqn.outvars, bind(eqn, _inputs(eqn, values)), strict=True))
        return [values[var] for var in gives]

    return trace(run, *shapes(needs))


def _block(
    eqns: Sequence[JaxprEqn],
    units: Units,
    takes: Sequence[Any],
    reads: Sequence[Any],
    wanted: Sequence[Any],
) -> Program:
    def run(i, *args):
        values = dict(zip([*takes, *reads], args, strict=True))
        for eqn in eqns:
            out = bind_block(eqn, _inputs(eqn, values), units, i)
            values.update(zip(eqn.outvars, out, strict=True))
        return [values[var] for var in wanted]

    number = jax.ShapeDtypeStruct((), jnp.int32)
    return trace(run, number, *shapes(takes), *shapes(reads, units.of_block))


def _inputs(eqn: JaxprEqn, values: dict[Any, Any]) -> list[Any]:
    return [atom.val if isinstance(atom, Literal) else values[atom] for atom in eqn.invars]
