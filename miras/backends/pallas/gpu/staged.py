"""Staged: a tile's program as loops over blocks of hidden units, where whole weights do not fit.

The weights of a deep memory have a dimension in common, its hidden units: the columns of W1 and the
rows of W2 in phi(x W1) W2. Most of what a tile computes treats each unit by itself, so a program is
run in stages. A stage computes at once what has no units, then block by block what has. A sum over
units is whole when the loop ends, and what needs it waits for the next stage:

    0  whole   decays                       blocks  z = k W1;  prediction += phi(z) W2
    1  whole   residual of the prediction   blocks  answers += phi(q W1) W2
                                            blocks  dW1, dW2;  new W1, W2

Sums and what is written have loops of their own, as registers for both would be too few. What a
later stage needs is kept in memory, which on a GPU is the L2 cache. `stages` makes them; here they
are run in a kernel.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Literal

from miras.array_typing import Array
from miras.backends.pallas.gpu.padded import padded
from miras.backends.pallas.trace.hidden_units import PARTS, Units, has_units
from miras.backends.pallas.trace.program import Program, peak

Write = Callable[..., None]  # of a value, and of the number of a block where it has units


class Loop(NamedTuple):
    """What is computed block by block.

    Attributes:
        program: of a block, after the block's number.
        takes: variables without units that it takes, and
        reads: those with units.
        sums: variables of which it gives a block's part, and the operation that does.
        keeps: variables with units that are wanted of it.
    """

    program: Program
    takes: list[Any]
    reads: list[Any]
    sums: list[tuple[Any, str]]
    keeps: list[Any]


class Stage(NamedTuple):
    """What is computed at once, then what block by block.

    Attributes:
        whole: the program of what has no units.
        needs: the variables that it takes, and
        gives: those that are wanted of it.
        loops: of what has units; none needs another.
    """

    whole: Program
    needs: list[Any]
    gives: list[Any]
    loops: list[Loop]


@dataclasses.dataclass(frozen=True, eq=False)
class Staged:
    """A program in stages.

    Attributes:
        units: None for one stage without blocks.
        program: without calls in it; its first arguments are its constants.
        stages: in order.
        kept: variables that are read again from memory.
    """

    units: Units | None
    program: Program
    stages: tuple[Stage, ...]
    kept: list[Any]

    @property
    def results(self) -> Any:
        """The shapes of what it gives."""
        return jax.tree.unflatten(self.program.out_tree, shapes(self.program.jaxpr.outvars))

    def captured(self) -> list[Array]:
        """The arrays that the program had captured, its first arguments."""
        arrays = self.program.constants
        return arrays if self.units is None else [self.units.apart(x, 0) for x in arrays]

    def scratch(self) -> list[jax.ShapeDtypeStruct]:
        """What `kept` takes: arrays of one shape in one, so that a kernel has few addresses."""
        return [
            jax.ShapeDtypeStruct((len(same), *shape), dtype)
            for (shape, dtype), same in self._alike().items()
        ]

    def _alike(self) -> dict[tuple[Any, Any], list[Any]]:
        """What is kept by shape and dtype, truth values as numbers."""
        found: dict[tuple[Any, Any], list[Any]] = {}
        for var, x in zip(self.kept, shapes(self.kept)):
            x = x if self.units is None else self.units.apart(x, 0)
            dtype = jnp.dtype(jnp.int32) if x.dtype == jnp.bool_ else x.dtype
            found.setdefault((x.shape, dtype), []).append(var)
        return found

    def peak(self, size: Callable[[Any], int]) -> int:
        """The size of all values alive at once, at most; arguments from their first use."""
        most = 0
        for stage in self.stages:
            most = max(most, peak(stage.whole.jaxpr, size, later=True))
            for loop in stage.loops:
                sums = sum(size(var.aval) for var, _ in loop.sums)
                most = max(most, sums + peak(loop.program.jaxpr, size, later=True))
        return most

    def everywhere(self, shapes: Sequence[Any], body: Callable[..., None]) -> None:
        """Body(n) for each shape, or body(n, i) for each block of it where it has units."""
        for n, x in enumerate(shapes):
            if self.units is None or self.units.axis(x.shape) is None:
                body(n)
            else:
                each = functools.partial(_and_zero, functools.partial(body, n))
                lax.fori_loop(0, self.units.blocks, each, 0)

    def __call__(
        self,
        run: Callable[..., list[Any]],
        reads: Any,
        writes: Any,
        scratch: Sequence[Any] = (),
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """Evaluate inside a kernel.

        Args:
            run: run(jaxpr, constants, *leaves), where leaves may be functions that read them.
            reads: a tree of such functions for the program's arguments, of a block's number where
                they have units, or of values.
            writes: a tree of functions like the program's result.
            scratch: refs as of `scratch()`.
            between: called where what was written to them is about to be read.
        """
        jaxpr = self.program.jaxpr
        values: dict[Any, Any] = dict(zip(jaxpr.invars, jax.tree.leaves(reads), strict=True))
        sinks: dict[Any, list[Write]] = {}
        for atom, write in zip(jaxpr.outvars, jax.tree.leaves(writes), strict=True):
            if isinstance(atom, Literal):
                write(jnp.asarray(atom.val, atom.aval.dtype))  # pyright: ignore
            elif atom in values and not has_units(atom, self.units):
                write(values[atom]() if callable(values[atom]) else values[atom])
            else:
                sinks.setdefault(atom, []).append(write)
        again: dict[Any, Callable[..., Array]] = {}
        for ref, same in zip(scratch, self._alike().values(), strict=True):
            for n, var in enumerate(same):
                sinks.setdefault(var, []).append(functools.partial(_keep, ref, n))
                again[var] = functools.partial(_kept, ref, n, var.aval.dtype)
        values.update((var, read) for var, read in again.items() if has_units(var, self.units))

        def made(variables: Sequence[Any], found: Sequence[Array]) -> None:
            values.update(zip(variables, found, strict=True))
            for var, value in zip(variables, found):
                for write in sinks.get(var, ()):
                    write(value)

        def forget(variables: Sequence[Any]) -> None:
            """What is kept is read again: registers are for what comes."""
            values.update((var, again[var]) for var in variables if var in again)

        sums: list[Any] = []
        for stage in self.stages:
            args = [values[var] for var in stage.needs]
            made(stage.gives, run(stage.whole.jaxpr, [], *args))
            forget((*stage.gives, *sums))
            sums = [var for loop in stage.loops for var, _ in loop.sums]
            between()
            totals = [self._loop(run, loop, values, sinks) for loop in stage.loops]
            made(sums, [total for each in totals for total in each])
            between()

    def _loop(self, run: Any, loop: Loop, values: Any, sinks: Any) -> list[Array]:
        assert self.units is not None

        def body(i, sums):
            args = [
                *(values[var] for var in loop.takes),
                *(functools.partial(values[var], i) for var in loop.reads),
            ]
            out = run(loop.program.jaxpr, [], i, *args)
            for var, value in zip(loop.keeps, out[len(sums) :], strict=True):
                for write in sinks[var]:
                    write(value, i)
            return [PARTS[name].join(x, y) for (_, name), x, y in zip(loop.sums, sums, out)]

        start = [
            jnp.full(padded(var.aval.shape), PARTS[name].start, var.aval.dtype)
            for var, name in loop.sums
        ]
        return lax.fori_loop(0, self.units.blocks, body, start)


def shapes(variables: Sequence[Any], of: Callable[[Any], Any] = lambda shape: shape) -> list[Any]:
    """Of variables."""
    return [jax.ShapeDtypeStruct(of(var.aval.shape), var.aval.dtype) for var in variables]


def _and_zero(body: Callable[[Any], None], i: Any, zero: int) -> int:
    body(i)
    return zero


def _keep(ref: Any, n: int, value: Array, *block: Any) -> None:
    ref[(n, *block)] = value.astype(ref.dtype)


def _kept(ref: Any, n: int, dtype: Any, *block: Any) -> Array:
    value = ref[(n, *block)]
    return value != 0 if dtype == jnp.bool_ else value
