"""Operations: equal forms of what a kernel's compiler does not know.

Each takes an equation, its inputs and a way to run the jaxprs it holds, and gives its results.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.extend.core import JaxprEqn

from miras.array_typing import Array
from miras.backends.pallas.target import ROWS
from miras.backends.pallas.trace.program import (
    Evaluate,
    Operation,
    inputs_of,
    loop_parts,
    results_of,
)


def inlined(name: str) -> Operation:
    """A call: the jaxpr that it holds under this parameter, in place."""

    def rewrite(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
        return inner(eqn.params[name], *inputs)

    return rewrite


def pad(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
    """Negative padding, which slices' derivatives have, as a slice."""
    del inner
    x, value = inputs
    config = eqn.params["padding_config"]
    start = [max(-low, 0) for low, _, _ in config]
    stop = [n - max(-high, 0) for n, (_, high, _) in zip(x.shape, config)]
    if any(start) or tuple(stop) != x.shape:
        x = lax.slice(x, start, stop)
    kept = [(max(low, 0), max(high, 0), interior) for low, high, interior in config]
    return [lax.pad(x, value, kept) if any(map(any, kept)) else x]


def power(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
    """x^y for x >= 0 as exp(y log x)."""
    del eqn, inner
    x, y = inputs
    zero = x <= 0.0
    safe = jnp.exp(y * jnp.log(jnp.where(zero, 1.0, x)))
    return [jnp.where(zero, jnp.where(y == 0, 1.0, 0.0), safe).astype(x.dtype)]


def expm1(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
    """exp(x) - 1 near 0 as 2 t / (1 - t) with t = tanh(x / 2)."""
    del eqn, inner
    (x,) = inputs
    t = jnp.tanh(jnp.where(jnp.abs(x) < 0.5, x, 0.0) / 2)
    return [jnp.where(jnp.abs(x) < 0.5, 2 * t / (1 - t), jnp.exp(x) - 1)]


def arctangent(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
    """Of x as of x / 1."""
    del eqn, inner
    return [lax.atan2(inputs[0], jnp.ones_like(inputs[0]))]


def sums(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
    """Other products as sums: batched, or over several dimensions, or none."""
    del inner
    (over, batch) = eqn.params["dimension_numbers"]
    free = [
        [i for i in range(a.ndim) if i not in over[side] and i not in batch[side]]
        for side, a in enumerate(inputs)
    ]
    contracted = [inputs[0].shape[i] for i in over[0]]
    x, y = (
        lax.transpose(a, (*batch[side], *free[side], *over[side])) for side, a in enumerate(inputs)
    )  # [batch, free, over] of each
    lead = len(batch[0])
    x = x.reshape(*x.shape[: lead + len(free[0])], *[1] * len(free[1]), *contracted)
    y = y.reshape(*y.shape[:lead], *[1] * len(free[0]), *y.shape[lead:])
    z = x * y
    axes = tuple(range(z.ndim - len(contracted), z.ndim))
    return [jnp.sum(z, axis=axes) if axes else z]


def row(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
    """x[t] for a t that is known only when it runs, as a masked sum."""
    del inner
    x, *at = inputs
    sizes = eqn.params["slice_sizes"]
    for axis, (start, size) in enumerate(zip(at, sizes)):
        if size != x.shape[axis]:
            here = lax.broadcasted_iota(jnp.int32, x.shape, axis) == start
            x = jnp.sum(jnp.where(here, x, jnp.zeros_like(x)), axis=axis, keepdims=True)
    return [x]


def put_row(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
    """x.at[t].set(y), the derivative of `row`, as a choice."""
    del eqn, inner
    x, y, *at = inputs
    chosen = None
    for axis, start in enumerate(at):
        if y.shape[axis] != x.shape[axis]:
            here = lax.broadcasted_iota(jnp.int32, x.shape, axis) == start
            chosen = here if chosen is None else chosen & here
    return [y if chosen is None else jnp.where(chosen, jnp.broadcast_to(y, x.shape), x)]


def take(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
    """x[:, index] as a product with columns of the identity."""
    del eqn, inner
    x, index = inputs
    chosen = _one_hot(index, x.shape[1], x.dtype)
    return [jnp.matmul(x, chosen, precision=lax.Precision.HIGHEST)]


def put(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
    """x.at[:, index].add(y), the derivative of `take`."""
    del eqn, inner
    x, index, y = inputs
    chosen = _one_hot(index, x.shape[1], x.dtype)
    rows = (((1,), (1,)), ((), ()))
    return [x + lax.dot_general(y, chosen, rows, precision=lax.Precision.HIGHEST)]


def _one_hot(index: Array, size: int, dtype) -> Array:
    index = index.reshape(1, -1)
    return (lax.broadcasted_iota(jnp.int32, (size, index.shape[1]), 0) == index).astype(dtype)


def running(x: Array) -> Array:
    """Sums over rows up to each, in registers by doubling and then on from one to the next."""
    blocks = x.reshape(-1, ROWS, x.shape[1])
    at = lax.broadcasted_iota(jnp.int32, (1, ROWS, x.shape[1]), 1)
    for by in (1, 2, 4):
        blocks = blocks + jnp.where(at >= by, pltpu.roll(blocks, by, 1), 0.0)
    parts = [blocks[0]]
    for i in range(1, blocks.shape[0]):
        parts.append(blocks[i] + parts[-1][-1:])
    return jnp.concatenate(parts, axis=0)


def shaped(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
    """A change of shape, of truth values as of numbers."""
    del inner
    x, *sizes = inputs
    bind = lambda x: eqn.primitive.bind(x, *sizes, **eqn.params)  # noqa: E731
    return [bind(x.astype(jnp.float32)) > 0.5 if x.dtype == jnp.bool_ else bind(x)]


def linear_solve(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
    """A solve with a derivative of its own: the solve."""
    lengths, jaxprs = eqn.params["const_lengths"], eqn.params["jaxprs"]
    before = lengths.matvec + lengths.vecmat
    constants = inputs[before : before + lengths.solve]
    return inner(jaxprs.solve, *constants, *inputs[sum(lengths) :])


def cond(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
    """The same, of rewritten branches."""

    def run(branch) -> Callable:
        return lambda *args: inner(branch, *args)

    return lax.switch(inputs[0], [run(b) for b in eqn.params["branches"]], *inputs[1:])


def repeat(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
    """A `while` of rewritten functions."""
    n, m = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    asks, does, start = inputs[:n], inputs[n : n + m], inputs[n + m :]
    return lax.while_loop(
        lambda carry: inner(eqn.params["cond_jaxpr"], *asks, *carry)[0],
        lambda carry: tuple(inner(eqn.params["body_jaxpr"], *does, *carry)),
        tuple(start),
    )


def scan_in_vmem(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
    """A `scan` as a loop over a carry, with what it reads and writes step by step in VMEM."""
    p = eqn.params
    constants, first, xs = loop_parts(eqn, inputs)
    length, body = p["length"], p["jaxpr"]
    if length == 1 or (length <= 4 and (xs or len(eqn.outvars) > len(first))):
        return _unrolled(eqn, constants, first, xs, inner)
    kept = results_of(eqn)[len(first) :]

    def whole(x_refs, y_refs):
        for ref, x in zip(x_refs, xs):
            ref[...] = _rows(x).astype(ref.dtype)

        def step(i, carry):
            t = length - 1 - i if p["reverse"] else i
            now = [ref[pl.ds(t, 1)].reshape(_one(x)).astype(x.dtype) for ref, x in zip(x_refs, xs)]
            out = inner(body, *constants, *carry, *now)
            for ref, y in zip(y_refs, out[len(first) :]):
                ref[pl.ds(t, 1)] = y.reshape(1, *ref.shape[1:]).astype(ref.dtype)
            return tuple(out[: len(first)])

        end = lax.fori_loop(0, length, step, tuple(first))
        ys = [ref[...].reshape(y.shape).astype(y.dtype) for ref, y in zip(y_refs, kept)]
        return (*end, *ys)

    return pl.run_scoped(whole, [_scratch(x) for x in xs], [_scratch(y) for y in kept])


def _unrolled(eqn: JaxprEqn, constants, first, xs, inner: Evaluate):
    params, carry, kept = eqn.params, list(first), []
    order = range(params["length"])
    for t in reversed(order) if params["reverse"] else order:
        now = [lax.squeeze(lax.slice_in_dim(x, t, t + 1), (0,)) for x in xs]
        out = inner(params["jaxpr"], *constants, *carry, *now)
        carry, y = out[: len(first)], out[len(first) :]
        kept.append(y)
    kept = kept[::-1] if params["reverse"] else kept
    shapes = results_of(eqn)[len(first) :]
    kept = [jnp.stack(y).reshape(s.shape) for y, s in zip(zip(*kept), shapes)]
    return [*carry, *kept]


def _one(x: Array) -> tuple[int, ...]:
    """The shape of x[t], of a vector as a row."""
    return (1, *x.shape[1:]) if x.ndim == 2 else x.shape[1:]


def _rows(x: Array) -> Array:
    """[N, ...] with two dimensions behind N, so that a row is a tile of its own."""
    own = x.shape[1:]
    return x.reshape(x.shape[0], *[1] * (2 - len(own)), *own)


def _scratch(x):
    own = x.shape[1:]
    dtype = jnp.int32 if x.dtype == jnp.bool_ else x.dtype
    return pltpu.VMEM((x.shape[0], *[1] * (2 - len(own)), *own), dtype)


CALLS: dict[str, Operation] = {
    "jit": inlined("jaxpr"),
    "pjit": inlined("jaxpr"),
    "closed_call": inlined("call_jaxpr"),
    "eval_jaxpr": inlined("call_jaxpr"),  # as jax 0.11 calls it
    "core_call": inlined("call_jaxpr"),
    "remat2": inlined("jaxpr"),
    "checkpoint": inlined("jaxpr"),
    "custom_jvp_call": inlined("call_jaxpr"),
    "custom_vjp_call": inlined("call_jaxpr"),
    "custom_lin": inlined("call_jaxpr"),
}
TPU: dict[str, Operation] = {
    "pad": pad,
    "pow": power,
    "expm1": expm1,
    "atan": arctangent,
    "dot_general": sums,
    "dynamic_slice": row,
    "dynamic_update_slice": put_row,
    "reshape": shaped,
    "broadcast_in_dim": shaped,
    "transpose": shaped,
    "gather": take,
    "scatter-add": put,
    "custom_linear_solve": linear_solve,
    "cond": cond,
    "while": repeat,
    "scan": scan_in_vmem,
}


def is_take(eqn: JaxprEqn) -> bool:
    """x[:, index]."""
    numbers = eqn.params["dimension_numbers"]
    columns = numbers.collapsed_slice_dims == (1,) == numbers.start_index_map
    return inputs_of(eqn)[0].ndim == 2 and columns and numbers.offset_dims == (0,)


def is_put(eqn: JaxprEqn) -> bool:
    """x.at[:, index].add(y)."""
    numbers = eqn.params["dimension_numbers"]
    columns = numbers.inserted_window_dims == (1,) == numbers.scatter_dims_to_operand_dims
    return inputs_of(eqn)[0].ndim == 2 and columns and numbers.update_window_dims == (0,)


def is_row(eqn: JaxprEqn) -> bool:
    """Whole but for axes of which it takes one entry."""
    x, *_ = inputs_of(eqn)
    return all(n in (1, m) for n, m in zip(eqn.params["slice_sizes"], x.shape))


def is_put_row(eqn: JaxprEqn) -> bool:
    """The same of a choice."""
    x, y, *_ = inputs_of(eqn)
    return all(n in (1, m) for n, m in zip(y.shape, x.shape))


# The forms of an operation that its rewrite takes, where it does not take all.
FORMS: dict[str, Callable[[JaxprEqn], bool]] = {
    "gather": is_take,
    "scatter-add": is_put,
    "dynamic_slice": is_row,
    "dynamic_update_slice": is_put_row,
}
