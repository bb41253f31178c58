"""A tile's program as loops over blocks of the hidden dimension, where whole weights do not fit.

The weights of a deep memory share a dimension, the hidden one: the columns of W1 and the rows of W2
in phi(x W1) W2. Most of what a tile computes treats each hidden unit by itself, so a program is run
in phases. A phase computes at once what lacks the hidden dimension, then block by block what has
it. A sum over the hidden dimension is complete when the loop ends, and what needs it is in the next
phase:

    0  whole   decays                       blocks  z = k W1;  prediction += phi(z) W2
    1  whole   residual of the prediction   blocks  answers += phi(q W1) W2
                                            blocks  dW1, dW2;  new W1, W2

Sums and what is written have loops of their own, as there are too few registers for both. What a
later phase needs is spilled to memory, which on a GPU is the L2 cache. `loop_fission` makes the
phases; here they are run in a kernel.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Literal

from miras.array_typing import Array
from miras.backends.pallas.gpu.padded import padded
from miras.backends.pallas.trace.hidden_blocks import Accumulator, HiddenBlocks, is_hidden
from miras.backends.pallas.trace.jaxprs import variables
from miras.backends.pallas.trace.liveness import peak_live_size
from miras.backends.pallas.trace.program import Program

Sink = Callable[..., None]  # of a value, and of a block's number where it has the dimension


class BlockLoop(NamedTuple):
    """A loop over blocks.

    Attributes:
        program: of a block: (the block's number, *invariants, *blocks) -> [*reduced, *results].
        invariants: variables without the hidden dimension that it reads.
        blocks: variables with the hidden dimension that it reads block by block.
        reduced: variables that are reductions of its blocks' results, and how.
        results: variables with the hidden dimension that it computes.
    """

    program: Program
    invariants: list[Any]
    blocks: list[Any]
    reduced: list[tuple[Any, Accumulator]]
    results: list[Any]


class Phase(NamedTuple):
    """What is computed at once, then what is computed block by block.

    Attributes:
        program: of what lacks the hidden dimension: (*operands) -> results.
        operands: the variables that it reads.
        results: the variables that others read of it.
        loops: of what has the hidden dimension; none reads another's results.
    """

    program: Program
    operands: list[Any]
    results: list[Any]
    loops: list[BlockLoop]


@dataclasses.dataclass(frozen=True, eq=False)
class PhasedProgram:
    """A program in phases.

    Attributes:
        blocks: of the hidden dimension; None for one phase without loops.
        program: the whole, without calls in it; its first arguments are its constants.
        phases: in order.
        spilled: variables that later phases and loops read from memory.
        eager: whether results are written as soon as they are computed; else at a phase's end.
    """

    blocks: HiddenBlocks | None
    program: Program
    phases: tuple[Phase, ...]
    spilled: list[Any]
    eager: bool = True

    @property
    def results(self) -> Any:
        """The shapes of what it gives."""
        return jax.tree.unflatten(
            self.program.out_tree, variable_shapes(self.program.jaxpr.outvars)
        )

    def captured(self) -> list[Array]:
        """The arrays that the program had captured, its first arguments."""
        arrays = self.program.constants
        return arrays if self.blocks is None else [self.blocks.split(x, 0) for x in arrays]

    def scratch(self) -> list[jax.ShapeDtypeStruct]:
        """Memory for `spilled`: arrays of one shape in one, so that a kernel has few addresses."""
        return [
            jax.ShapeDtypeStruct((len(same), *shape), dtype)
            for (shape, dtype), same in self._spilled_alike().items()
        ]

    def _spilled_alike(self) -> dict[tuple[Any, Any], list[Any]]:
        """Spilled variables by shape and dtype; truth values are stored as integers."""
        found: dict[tuple[Any, Any], list[Any]] = {}
        for var, x in zip(self.spilled, variable_shapes(self.spilled)):
            x = x if self.blocks is None else self.blocks.split(x, 0)
            dtype = jnp.dtype(jnp.int32) if x.dtype == jnp.bool_ else x.dtype
            found.setdefault((x.shape, dtype), []).append(var)
        return found

    def peak_live_size(self, size: Callable[[Any], int]) -> int:
        """The largest size of all values that are live at once, as `__call__` runs it.

        Arguments are live from their first use; results, if they are written at once, until their
        last.
        """

        def live(program: Program) -> int:
            options = {"inputs_on_use": True, "results_until_use": self.eager}
            return peak_live_size(program.jaxpr, size, **options)

        peak = 0
        for phase in self.phases:
            peak = max(peak, live(phase.program))
            for loop in phase.loops:
                sums = sum(size(var.aval) for var, _ in loop.reduced)
                peak = max(peak, sums + live(loop.program))
        return peak

    def addresses(self, size: Callable[[Any], int]) -> int:
        """The total size of the addresses of the arrays in memory, of one block of each.

        Args:
            size: of the addresses of an array of this shape.
        """
        jaxpr = self.program.jaxpr
        stored = dict.fromkeys(variables((*self.spilled, *jaxpr.invars, *jaxpr.outvars)))
        shape = self.blocks.block_shape if self.blocks else lambda shape: shape
        return sum(size(x) for x in variable_shapes(list(stored), shape))

    def for_each_block(self, shapes: Sequence[Any], body: Callable[..., None]) -> None:
        """Body(n) for each shape, or body(n, i) for each block where it has the dimension."""
        for n, x in enumerate(shapes):
            if self.blocks is None or self.blocks.axis(x.shape) is None:
                body(n)
            else:
                each = partial(_and_zero, partial(body, n))
                lax.fori_loop(0, self.blocks.blocks, each, 0)

    def __call__(
        self,
        evaluate: Callable[..., list[Any]],
        reads: Any,
        writes: Any,
        scratch: Sequence[Any] = (),
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """Evaluate inside a kernel.

        Args:
            evaluate: (jaxpr, constants, *leaves) -> results; leaves may be functions that read.
            reads: a tree like the program's arguments, of values or of functions that read them,
                of a block's number where they have the hidden dimension.
            writes: a tree like the program's result, of functions that write it.
            scratch: refs as of `scratch()`.
            between: called between writes to memory and reads of what was written.
        """
        jaxpr = self.program.jaxpr
        values: dict[Any, Any] = dict(zip(jaxpr.invars, jax.tree.leaves(reads), strict=True))
        sinks: dict[Any, list[Sink]] = {}
        for atom, write in zip(jaxpr.outvars, jax.tree.leaves(writes), strict=True):
            if isinstance(atom, Literal):
                write(jnp.asarray(atom.val, atom.aval.dtype))  # pyright: ignore
            elif atom in values and not is_hidden(atom, self.blocks):
                write(values[atom]() if callable(values[atom]) else values[atom])
            else:
                sinks.setdefault(atom, []).append(write)
        reloads: dict[Any, Callable[..., Array]] = {}
        for ref, same in zip(scratch, self._spilled_alike().values(), strict=True):
            for n, var in enumerate(same):
                sinks.setdefault(var, []).append(partial(_spill, ref, n))
                reloads[var] = partial(_reload, ref, n, var.aval.dtype)
        values.update((var, read) for var, read in reloads.items() if is_hidden(var, self.blocks))

        def define(var: Any, value: Array) -> None:
            values[var] = value
            for write in sinks.get(var, ()):
                write(value)

        def free(variables: Sequence[Any]) -> None:
            """Spilled values are read again, and leave their registers to what comes next."""
            values.update((var, reloads[var]) for var in variables if var in reloads)

        sums: list[Any] = []
        for phase in self.phases:
            args = [values[var] for var in phase.operands]
            uses = [partial(define, var) for var in phase.results]
            _evaluate(evaluate, phase.program, args, uses, eager=self.eager)
            free((*phase.results, *sums))
            sums = [var for loop in phase.loops for var, _ in loop.reduced]
            between()
            totals = [self._run(evaluate, loop, values, sinks, between) for loop in phase.loops]
            for var, total in zip(sums, [total for each in totals for total in each], strict=True):
                define(var, total)
            between()

    def _run(self, evaluate: Any, loop: BlockLoop, values: Any, sinks: Any, between) -> list[Array]:
        assert self.blocks is not None

        def body(i, sums):
            args = [
                *(values[var] for var in loop.invariants),
                *(partial(values[var], i) for var in loop.blocks),
            ]
            between()  # or compilers read all invariants before the loop, into registers
            sums = list(sums)

            def add(n: int, value: Array) -> None:
                sums[n] = loop.reduced[n][1].combine(sums[n], value)

            def write(var: Any, value: Array) -> None:
                for sink in sinks[var]:
                    sink(value, i)

            uses = [partial(add, n) for n in range(len(sums))]
            uses += [partial(write, var) for var in loop.results]
            _evaluate(evaluate, loop.program, [i, *args], uses, eager=self.eager)
            return sums

        start = [
            jnp.full(padded(var.aval.shape), how.start, var.aval.dtype) for var, how in loop.reduced
        ]
        return lax.fori_loop(0, self.blocks.blocks, body, start)


def variable_shapes(
    variables: Sequence[Any], of: Callable[[Any], Any] = lambda shape: shape
) -> list[Any]:
    """Of variables."""
    return [jax.ShapeDtypeStruct(of(var.aval.shape), var.aval.dtype) for var in variables]


def _evaluate(
    evaluate: Callable[..., list[Any]],
    program: Program,
    args: Sequence[Any],
    uses: Sequence[Callable[[Array], None]],
    *,
    eager: bool,
) -> None:
    """Evaluate and use each result, if eager as soon as it is computed: it may leave registers."""
    results = program.jaxpr.outvars
    waiting: dict[Any, list[Callable[[Array], None]]] = {}
    for atom, use in zip(results, uses, strict=True):
        if eager and not isinstance(atom, Literal):
            waiting.setdefault(atom, []).append(use)

    def computed(var: Any, value: Array) -> None:
        for use in waiting.pop(var, ()):
            use(value)

    found = evaluate(program.jaxpr, [], *args, computed=computed)
    for atom, value, use in zip(results, found, uses):
        if not eager or isinstance(atom, Literal) or atom in waiting:  # or an argument
            use(value)


def _and_zero(body: Callable[[Any], None], i: Any, zero: int) -> int:
    body(i)
    return zero


def _spill(ref: Any, n: int, value: Array, *block: Any) -> None:
    ref[(n, *block)] = value.astype(ref.dtype)


def _reload(ref: Any, n: int, dtype: Any, *block: Any) -> Array:
    value = ref[(n, *block)]
    return value != 0 if dtype == jnp.bool_ else value
