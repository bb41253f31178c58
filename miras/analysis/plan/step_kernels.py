"""The memory kernels of a compiled step, and how many cycles each takes by its final schedule.

    cycles of a call = rows / cores x groups x bundles of a grid step

The grid of a kernel is (rows, groups), of which the cores of a chip share the rows. The program's
text says how often each kernel runs, the traced step what its grid is and how often the loops in a
grid step run, and the compiler's listing (`schedule`) what a grid step and each of its loops take.
"""

import math
import operator
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from miras.analysis.plan import schedule
from miras.backends.pallas.trace.jaxprs import equations, in_avals, inner_jaxprs, out_avals
from miras.parallel.collectives import executed

_NAMES = ("miras_forward", "miras_backward")
_CALL = re.compile(
    r"%?((" + "|".join(_NAMES) + r")[\w.-]*) = (.*?) custom-call\(.*"
    r"operand_layout_constraints=\{(.*?\})\}"
)
_SHAPE = re.compile(r"\b[a-z]+\d*\[([\d,]*)\]")

# What the number of a group's tiles is computed by.
_SCALARS: dict[str, Callable[..., int]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "min": min,
    "max": max,
    "convert_element_type": int,
}

_Shapes = tuple[tuple[int, ...], ...]


class StepKernel(NamedTuple):
    """A kernel of a step.

    Attributes:
        name: of its instruction in the compiled program.
        calls: in a step of a chip.
        rows: grid steps that the cores of a chip share.
        groups: grid steps of each of them, one after the other.
        bundles: of a grid step, on average.
    """

    name: str
    calls: int
    rows: int
    groups: int
    bundles: float

    @property
    def backward(self) -> bool:
        """Whether it is that of the backward pass."""
        return self.name.startswith(_NAMES[1])

    def cycles(self, cores: int) -> float:
        """Of a step, on a chip with so many cores, which share the rows."""
        return self.calls * math.ceil(self.rows / cores) * self.groups * self.bundles


class _Traced(NamedTuple):
    """A kernel before it is compiled: its grid, and runs of each loop in a grid step."""

    rows: int
    groups: int
    trips: tuple[float, ...]


def step_kernels(jaxpr: Jaxpr, text: str, dump: Path) -> list[StepKernel]:
    """The kernels of memories in a compiled step.

    Args:
        jaxpr: the traced step.
        text: of the compiled program.
        dump: the folder that `schedule.FLAGS` named.

    Raises:
        ValueError: a kernel's schedule is not in the dump, or has loops of unknown length.
    """
    traced = _traced(jaxpr)
    found: dict[str, StepKernel] = {}
    for line, _, runs in executed(text):
        call = _CALL.search(line)
        if call is None:
            continue
        name = call[1]
        if name in found:
            found[name] = found[name]._replace(calls=found[name].calls + runs)
            continue
        of_shapes = traced.get((call[2], _shapes(call[4]), _shapes(call[3])), set())
        if len(of_shapes) != 1:
            raise ValueError(f"{len(of_shapes)} kernels of the traced step may be {name}")
        (kernel,) = of_shapes
        bundles = schedule.bundles(dump, name, kernel.trips)
        found[name] = StepKernel(name, runs, kernel.rows, kernel.groups, bundles)
    return list(found.values())


def _shapes(text: str) -> _Shapes:
    return tuple(
        tuple(int(size) for size in shape.split(",") if size) for shape in _SHAPE.findall(text)
    )


def _traced(jaxpr: Jaxpr) -> dict[tuple[str, _Shapes, _Shapes], set[_Traced]]:
    """The kernels by their names and the shapes of operands and results."""
    found: dict[tuple[str, _Shapes, _Shapes], set[_Traced]] = {}
    for eqn in equations(jaxpr):
        if eqn.primitive.name != "pallas_call":
            continue
        grid = eqn.params["grid_mapping"].grid
        name = next((name for name in _NAMES if str(eqn.params["name"]).startswith(name)), None)
        if name is None:
            continue
        shapes = (tuple(tuple(x.shape) for x in avals(eqn)) for avals in (in_avals, out_avals))
        operands, results = shapes
        kernel = _Traced(grid[0], grid[1], _mean_trips(eqn.params["jaxpr"], grid[1]))
        found.setdefault((name, operands, results), set()).add(kernel)
    return found


def _mean_trips(kernel: Jaxpr, groups: int) -> tuple[float, ...]:
    """Runs of each loop in a grid step: the mean over groups, of which the first and the last may
    be shorter.
    """
    first, last = (tuple(_trips(kernel, {}, (0, n), 1)) for n in (0, groups - 1))
    if groups == 1:
        return first
    between = tuple(_trips(kernel, {}, (0, 1), 1))
    return tuple(
        (a + b + (groups - 2) * c) / groups for a, b, c in zip(first, last, between, strict=True)
    )


def _trips(
    jaxpr: Jaxpr, known: dict[Any, int | None], place: tuple[int, int], times: int
) -> Iterator[int]:
    """Runs of each loop's body, a loop before those inside it; those of branches are left out.

    Args:
        jaxpr: of a kernel, or of a part of it.
        known: integers that follow from the place alone; more are added.
        place: in the grid.
        times: runs of the jaxpr.
    """
    for eqn in jaxpr.eqns:
        name, inputs = eqn.primitive.name, [_read(atom, known) for atom in eqn.invars]
        if name == "program_id":
            known[eqn.outvars[0]] = place[eqn.params["axis"]]
        elif name in _SCALARS:
            if all(x is not None for x in inputs):
                known[eqn.outvars[0]] = _SCALARS[name](*inputs)
        elif name in ("while", "scan"):
            body, runs = _loop(eqn, inputs)
            yield times * runs
            yield from _trips(body, {}, place, times * runs)
        elif name != "cond":
            for inner in inner_jaxprs(eqn):
                values = dict(zip(inner.invars, inputs)) if len(inner.invars) == len(inputs) else {}
                yield from _trips(inner, values, place, times)
                if len(inner.outvars) == len(eqn.outvars):
                    results = (_read(atom, values) for atom in inner.outvars)
                    known.update(zip(eqn.outvars, results))


def _read(atom: Any, known: dict[Any, int | None]) -> int | None:
    """A value, if it is a known integer."""
    if not isinstance(atom, Literal):
        return known.get(atom)
    value = np.asarray(atom.val)
    return int(value) if value.shape == () and value.dtype.kind in "iu" else None


def _loop(eqn: JaxprEqn, inputs: list[int | None]) -> tuple[Jaxpr, int]:
    """The body of a loop, and its runs."""
    if eqn.primitive.name == "scan":
        return _open(eqn.params["jaxpr"]), eqn.params["length"]
    condition = _open(eqn.params["cond_jaxpr"])
    carried = eqn.params["cond_nconsts"] + eqn.params["body_nconsts"]
    counter, end = inputs[carried : carried + 2]
    tests = [(test.primitive.name, *test.invars) for test in condition.eqns]
    if tests != [("lt", *condition.invars[:2])] or counter is None or end is None:
        raise ValueError("a kernel has a loop whose length is not known before it runs")
    return _open(eqn.params["body_jaxpr"]), max(0, end - counter)


def _open(jaxpr: Any) -> Jaxpr:
    return jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
