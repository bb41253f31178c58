"""GPU kernels: the tile step traced into Pallas's Triton, forward and backward.

A program of the grid is a head of a row: it goes through the head's tiles with the memory in its
registers. The forward kernel saves the memory before every tile; the backward kernel goes from the
last tile to the first, and its body is `jax.vjp` of the same step. What a tile does is
`engine.tile.tile_step`. This file and `triton` are all that knows of Triton, which jax 0.11 calls
deprecated.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from miras.engine.chunk import Fast, Tile
from miras.engine.devices import varying_alike
from miras.kernels.given import Flags, Given, backward_program, forward_program, on_tile, own
from miras.kernels.loop import Kernels, in_kernels
from miras.kernels.padded import padded
from miras.kernels.program import Program
from miras.kernels.triton import REWRITES
from miras.typing import Array

VOLATILE = False
interpreting = jax.make_user_context(False)


class Layout(NamedTuple):
    """How kernels go through tiles.

    Attributes:
        warps: of 32 threads, that share a head's memory.
        group: tiles of a call. The memory is saved at all of them, and found again between calls.
    """

    warps: int
    group: int


def in_groups(
    step: Callable[..., Any],
    constants: Any,
    memory: Fast,
    tiles: Tile,
    resets: Array | None,
    *,
    layout: Layout,
) -> tuple[Fast, Array, Array]:
    """As `engine.xla.in_order`, in kernels, a group of tiles in each call."""
    run = functools.partial(in_kernels, KERNELS, step, layout=layout)
    count = tiles.write.shape[0]
    if count <= layout.group:
        return run(constants, memory, tiles, resets)
    run, found = jax.checkpoint(run), []
    for at in range(0, count, layout.group):
        some = jax.tree.map(lambda x, at=at: x[at : at + layout.group], (tiles, resets))
        memory, *read = run(constants, memory, *some)
        found.append(read)
    y, loss = (jnp.concatenate(parts) for parts in zip(*found))
    return memory, y, loss


class Placed(NamedTuple):
    """A tree of padded arrays or their shapes, and their blocks."""

    arrays: Any
    specs: Any


class Heads:
    """The grid (rows x heads).

    Args:
        sizes: tiles N, rows B and heads H.
    """

    def __init__(self, sizes: tuple[int, ...]):
        self.tiles, self.rows, self.heads = sizes

    def whole(self, tree: Any) -> Placed:
        """Arrays that every program sees whole."""
        return self._place(tree, 0, lambda g: ())

    def by_head(self, tree: Any) -> Placed:
        """Arrays [H, ...]."""
        return self._place(tree, 1, lambda g: (g % self.heads,))

    def by_row(self, tree: Any) -> Placed:
        """Arrays [B, H, ...]."""
        return self._place(tree, 2, lambda g: (g // self.heads, g % self.heads))

    def by_tile(self, tree: Any) -> Placed:
        """Arrays [N, B, H, ...], all of a head's tiles."""
        return self._place(tree, 3, lambda g: (0, g // self.heads, g % self.heads), seen=1)

    def flags(self, flags: Flags) -> Placed:
        """Flags [N, B], as numbers."""
        numbers = jax.tree.map(lambda x: x.astype(jnp.int32), flags)
        return self._place(numbers, 2, lambda g: (0, g // self.heads), seen=1)

    def call(
        self,
        kernel: Callable[[dict, dict], None],
        name: str,
        warps: int,
        inputs: dict[str, Placed],
        outputs: dict[str, Placed],
    ) -> dict[str, Any]:
        """Run kernel(inputs, outputs), given refs by name; returns the outputs, padded."""
        arrays = varying_alike({key: placed.arrays for key, placed in inputs.items()})
        leaves = jax.tree.leaves(arrays)
        varies = jax.typeof(leaves[0]).manual_axis_type  # pyright: ignore

        def shape(x: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, manual_axis_type=varies)  # pyright: ignore

        return pl.pallas_call(
            kernel,
            out_shape={key: jax.tree.map(shape, placed.arrays) for key, placed in outputs.items()},
            grid=(self.rows * self.heads,),
            in_specs=({key: placed.specs for key, placed in inputs.items()},),
            out_specs={key: placed.specs for key, placed in outputs.items()},
            compiler_params=plgpu.CompilerParams(num_warps=warps, num_stages=1),
            interpret=interpreting.value,
            name=name,
        )(arrays)

    def _place(self, tree: Any, lead: int, at: Callable[..., Any], seen: int = 0) -> Placed:
        def shaped(x: Any) -> Any:
            shape = (*x.shape[:lead], *padded(x.shape[lead:]))
            if isinstance(x, jax.ShapeDtypeStruct):
                return jax.ShapeDtypeStruct(shape, x.dtype)
            return jnp.pad(x, [(0, new - old) for new, old in zip(shape, x.shape)])

        def spec(x: Any) -> pl.BlockSpec:
            block = (*x.shape[:seen], *(None,) * (lead - seen), *x.shape[lead:])
            return pl.BlockSpec(block, lambda g: (*at(g), *[0] * (x.ndim - lead)))

        arrays = jax.tree.map(shaped, tree)
        return Placed(arrays, jax.tree.map(spec, arrays))


def read(refs: Any, i: Any = ...) -> Any:
    """The values of refs, or entry i of each."""
    return jax.tree.map(lambda ref: ref[i], refs)


def later(refs: Any, i: Any = ...) -> Any:
    """The same, read anew wherever they are used, so that they take registers only there."""
    return jax.tree.map(lambda ref: functools.partial(_load, ref, i), refs)


def _load(ref: Any, i: Any) -> Array:
    if interpreting.value:
        return ref[i]
    return plgpu.load(ref.at[i], volatile=VOLATILE)


def _if(condition: Any, ref: Any) -> Array:
    x = ref[...]
    return jnp.where(condition, x, jnp.zeros_like(x))


def synchronise() -> None:
    """What some threads have written, others may read."""
    if not interpreting.value:
        plgpu.debug_barrier()


def write(refs: Any, values: Any, i: Any = ...) -> None:
    """The inverse of `read`."""

    def one(ref: Any, value: Array) -> None:
        ref[i] = value.astype(ref.dtype)

    jax.tree.map(one, refs, values)


def flags_at(refs: Any, i: Any) -> Flags:
    """Those of tile i."""
    return jax.tree.map(lambda ref: ref[i] > 0, refs)


class Used:
    """The leaves of a tree that a program looks at: the others need no registers.

    Args:
        program: whose inputs they are.
        tree: of them, or of their shapes.
        first: the first one's place among the inputs.
    """

    def __init__(self, program: Program, tree: Any, first: int):
        self.leaves, self.tree = jax.tree.flatten(tree)
        jaxpr = program.jaxpr
        looked_at = {id(atom) for eqn in jaxpr.eqns for atom in eqn.invars}
        looked_at |= {id(atom) for atom in jaxpr.outvars}
        places = range(first, first + len(self.leaves))
        self.here = [id(jaxpr.invars[i]) in looked_at for i in places]
        self.end = first + len(self.leaves)

    def kept(self, tree: Any) -> list[Any]:
        """The leaves that it looks at."""
        return [leaf for leaf, here in zip(jax.tree.leaves(tree), self.here) if here]

    def others(self, tree: Any) -> list[Any]:
        """The leaves that it does not look at."""
        return [leaf for leaf, here in zip(jax.tree.leaves(tree), self.here) if not here]

    def joined(self, kept: list[Any], others: list[Any]) -> Any:
        """The tree of both."""
        kept, others = iter(kept), iter(others)  # pyright: ignore
        return jax.tree.unflatten(self.tree, [next(kept if here else others) for here in self.here])  # pyright: ignore

    def nothing(self, lead: int = 0) -> list[Array]:
        """Zeros in place of the others, padded."""
        shapes = [(*x.shape[:lead], *padded(x.shape[lead:])) for x in self.others(self.leaves)]
        return [jnp.zeros(s, x.dtype) for s, x in zip(shapes, self.others(self.leaves))]


def _used(program: Program, one: Given) -> tuple[Used, Used]:
    """Of constants and of memory."""
    constants = Used(program, one.constants, len(jax.tree.leaves(one.flags)))
    return constants, Used(program, one.memory, constants.end)


def _forward(step: Callable[..., Any], layout: Layout, given: Given, save: bool = True):
    """(memory, y, loss), and what the step looks at of the memories before each tile."""
    program, one = forward_program(step, given), given.of_one_tile()
    sizes = given.streams.q.shape[:3]
    heads = Heads(sizes)
    _, used = _used(program, one)
    results = jax.eval_shape(on_tile(step), one.flags, one.constants, one.memory, one.streams)
    every = lambda tree, count=sizes[0]: jax.tree.map(  # noqa: E731
        lambda s: jax.ShapeDtypeStruct((count, *sizes[1:], *s.shape), s.dtype), tree
    )
    inputs = {
        "flags": heads.flags(given.flags),
        "captured": heads.whole(program.constants),
        "constants": heads.by_head(given.constants),
        "memory": heads.by_row(given.memory),
        "streams": heads.by_tile(given.streams),
    }
    places = sizes[0] + 1 if save else 2
    outputs = {
        "memory": heads.by_row(own(given.memory, 0)),
        "y_loss": heads.by_tile(every(results[1:])),
        "between": heads.by_tile(every(used.kept(one.memory), places)),
    }

    def kernel(inputs, outputs):
        captured, constants = later(inputs["captured"]), later(inputs["constants"])
        between = outputs["between"]
        write(between, read(used.kept(inputs["memory"])), 0)

        def tile(i, _):
            synchronise()
            memory = used.joined(later(between, lax.rem(i, places)), used.nothing())
            streams = later(inputs["streams"], i)
            at = flags_at(inputs["flags"], i)
            memory, *y_loss = program(REWRITES, captured, at, constants, memory, streams)
            write(outputs["y_loss"], tuple(y_loss), i)
            write(between, used.kept(memory), lax.rem(i + 1, places))

            @pl.when(i == heads.tiles - 1)
            def _():
                write(outputs["memory"], memory)

            return 0

        lax.fori_loop(0, heads.tiles, tile, 0)

    out = heads.call(kernel, "miras_forward", layout.warps, inputs, outputs)
    y, loss = _cut(out["y_loss"], every(results[1:]))
    return (_cut(out["memory"], given.memory), y, loss), out["between"]


def _run(step: Callable[..., Any], layout: Layout, given: Given):
    return _forward(step, layout, given, save=False)[0]


def _backward(step, layout: Layout, constants, streams, flags, saved, cotangents):
    """The cotangents of constants, memory and streams."""
    d_memory, *d_read = cotangents
    given = Given(constants, d_memory, streams, flags)
    forward, back = forward_program(step, given), backward_program(step, given)
    one = given.of_one_tile()
    heads = Heads(streams.q.shape[:3])
    weights, used = _used(forward, one)
    inputs = {
        "flags": heads.flags(flags),
        "captured": heads.whole(back.constants),
        "constants": heads.by_head(constants),
        "streams": heads.by_tile(streams),
        "saved": heads.by_tile(saved),
        "d_memory": heads.by_row(d_memory),
        "d_read": heads.by_tile(d_read),
    }
    by_row = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((heads.rows, *x.shape), x.dtype), weights.kept(constants)
    )
    outputs = {
        "constants": heads.by_row(by_row),
        "memory": heads.by_row(own(used.kept(d_memory), 0)),
        "streams": heads.by_tile(own(streams, 0)),
        "between": heads.by_tile([jax.ShapeDtypeStruct((2, *x.shape), x.dtype) for x in used.kept(d_memory)]),
    }

    def kernel(inputs, outputs):
        captured, constants = later(inputs["captured"]), later(inputs["constants"])
        between = outputs["between"]
        write(between, read(used.kept(inputs["d_memory"])), 0)
        write(outputs["constants"], [jnp.zeros(x.shape, x.dtype) for x in outputs["constants"]])

        def tile(n, _):
            synchronise()
            i = heads.tiles - 1 - n
            memory = used.joined(later(inputs["saved"], i), used.nothing())
            streams, at = later(inputs["streams"], i), flags_at(inputs["flags"], i)
            # What the step does not look at comes from this tile only if this is the last.
            others = [
                functools.partial(_if, n == 0, ref) for ref in used.others(inputs["d_memory"])
            ]
            d_memory = used.joined(later(between, lax.rem(n, 2)), others)
            ends = (d_memory, *later(inputs["d_read"], i))
            d_constants, d_memory, d_streams = back(
                REWRITES, captured, at, constants, memory, streams, ends
            )
            write(outputs["streams"], d_streams, i)
            write(between, used.kept(d_memory), lax.rem(n + 1, 2))
            total = zip(read(outputs["constants"]), weights.kept(d_constants))
            write(outputs["constants"], [x + d for x, d in total])

            @pl.when(i == 0)
            def _():
                write(outputs["memory"], used.kept(d_memory))

            return 0

        lax.fori_loop(0, heads.tiles, tile, 0)

    out = heads.call(kernel, "miras_backward", layout.warps, inputs, outputs)
    zeros = lambda tree: [jnp.zeros_like(x) for x in tree]  # noqa: E731
    total = [jnp.sum(x, axis=0) for x in _cut(out["constants"], by_row)]
    kept = _cut(out["memory"], used.kept(d_memory))
    return (
        weights.joined(total, zeros(weights.others(constants))),
        used.joined(kept, zeros(used.others(d_memory))),
        _cut(out["streams"], streams),
    )


def _cut(arrays: Any, tree: Any) -> Any:
    """Padded arrays in the shapes of a tree's."""
    return jax.tree.map(lambda x, s: x[tuple(map(slice, s.shape))], arrays, tree)


KERNELS = Kernels(_run, _forward, _backward)
