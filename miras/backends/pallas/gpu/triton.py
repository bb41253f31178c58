"""Triton: equal forms, in padded arrays, of what Pallas's Triton compiler does not know.

Inputs and results of each are padded, see `padded`; the equation has the shapes that they stand
for. Operations entry by entry are the same in both.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from miras.array_typing import Array
from miras.backends.pallas.gpu import padded as p
from miras.backends.pallas.trace.program import Evaluate, Operation, evaluate, loop_parts, rewritten
from miras.backends.pallas.trace.rewrites import (
    CALLS,
    cond,
    is_put,
    is_put_row,
    is_row,
    is_take,
    linear_solve,
    put_row,
    repeat,
)
from miras.backends.pallas.trace.support import Compiler


def shapes(eqn: JaxprEqn) -> list[tuple[int, ...]]:
    """What the equation's inputs stand for."""
    return [atom.aval.shape for atom in eqn.invars]  # pyright: ignore


def result(eqn: JaxprEqn) -> tuple[int, ...]:
    """The padded shape of its result."""
    return p.padded(eqn.outvars[0].aval.shape)  # pyright: ignore


def product(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
    """Of two matrices as it is, once masked; others entry by entry."""
    del inner
    (over, batch), (x, y) = eqn.params["dimension_numbers"], inputs
    x, y = (p.masked(a, s, axes) for a, s, axes in zip((x, y), shapes(eqn), over))
    options = {key: eqn.params[key] for key in ("precision", "preferred_element_type")}
    if x.ndim == y.ndim == 2 and not batch[0] and len(over[0]) == 1:
        return [p.product(x, y, (over[0][0], over[1][0]), **options)]
    free = [
        [i for i in range(a.ndim) if i not in over[side] and i not in batch[side]]
        for side, a in enumerate((x, y))
    ]
    x, y = (
        jnp.transpose(a, (*batch[side], *free[side], *over[side])) for side, a in enumerate((x, y))
    )
    lead, n = len(batch[0]), len(free[0])
    x = x.reshape(*x.shape[: lead + n], *[1] * len(free[1]), *x.shape[lead + n :])
    y = y.reshape(*y.shape[:lead], *[1] * n, *y.shape[lead:])
    z = x * y
    axes = tuple(range(z.ndim - len(over[0]), z.ndim))
    return [jnp.sum(z, axis=axes) if axes else z]


def reduced(value: Callable[[jnp.dtype], Any]) -> Operation:
    """A reduction, with a value that does not count beyond the shape."""

    def rewrite(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
        del inner
        axes = eqn.params["axes"]
        (x,), (shape,) = inputs, shapes(eqn)
        x = p.masked(x, shape, axes, value(x.dtype))
        return [eqn.primitive.bind(x, **eqn.params)]

    return rewrite


def any_or_all(name: str) -> Operation:
    """`or` and `and` of truth values as the largest and the least of numbers."""
    reduce, neutral = (jnp.max, 0) if name == "any" else (jnp.min, 1)

    def rewrite(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
        del inner
        axes = eqn.params["axes"]
        x = p.masked(inputs[0].astype(jnp.int32), shapes(eqn)[0], axes, neutral)
        return [reduce(x, axis=axes) > 0]

    return rewrite


def broadcast(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
    """Into the padded shape."""
    del inner
    return [lax.broadcast_in_dim(inputs[0], result(eqn), eqn.params["broadcast_dimensions"])]


def iota(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
    """Of the padded shape."""
    del inputs, inner
    index = lax.broadcasted_iota(jnp.int32, result(eqn), eqn.params["dimension"])
    return [index.astype(eqn.params["dtype"])]


def shaped(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
    """Into the padded shape: `can_shape` has seen to it that entries stay where they are."""
    del inner
    x, shape = inputs[0], result(eqn)
    if x.shape == shape:
        return [x]
    return [jnp.sum(x) if not shape else x.reshape(shape)]


def transpose(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
    """The same, where there is something to do."""
    del inner
    order = eqn.params["permutation"]
    return [inputs[0] if order == tuple(range(len(order))) else jnp.transpose(inputs[0], order)]


def cut(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
    """A slice."""
    del inner
    (x,), (shape,), new = inputs, shapes(eqn), eqn.outvars[0].aval.shape  # pyright: ignore
    strides = eqn.params["strides"] or (1,) * x.ndim
    for axis, (first, every) in enumerate(zip(eqn.params["start_indices"], strides)):
        if new[axis] != shape[axis]:
            size = p.padded((new[axis],))[0]
            x = p.moved(x, axis, shape[axis], size, first=first, every=every)
    return [x]


def pad(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
    """Entries moved, and the value where there are none; a slice where padding is negative."""
    del inner
    (x, value), (shape, _), size = inputs, shapes(eqn), result(eqn)
    config = eqn.params["padding_config"]
    zero = _is_zero(eqn.invars[1])
    for axis, (low, high, interior) in enumerate(config):
        if (low, high, interior) == (0, 0, 0):
            continue
        x = p.moved(x, axis, shape[axis], size[axis], first=-low, gap=interior + 1)
        if not zero:
            at = lax.broadcasted_iota(jnp.int32, x.shape, axis) - low
            own = (at >= 0) & (at < shape[axis] * (interior + 1)) & (at % (interior + 1) == 0)
            x = jnp.where(own, x, value)
    return [x]


def _is_zero(atom) -> bool:
    return isinstance(atom, Literal) and atom.val == 0


def concatenate(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
    """The sum of the parts, each moved to its place."""
    del inner
    axis, size, first, placed = eqn.params["dimension"], result(eqn), 0, []
    for x, shape in zip(inputs, shapes(eqn)):
        placed.append(p.moved(x, axis, shape[axis], size[axis], first=-first))
        first += shape[axis]
    return [functools.reduce(jnp.add, placed)]


def stack(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
    """The parts along a new axis, each at its place of zeros."""
    del inner
    axis, shape = eqn.params["axis"], result(eqn)
    index = lax.broadcasted_iota(jnp.int32, shape, axis)
    total = jnp.broadcast_to(jnp.expand_dims(inputs[0], axis), shape)
    for i, x in enumerate(inputs[1:], 1):
        total = jnp.where(index == i, jnp.expand_dims(x, axis), total)
    return [total]


def unstack(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
    """Each entry along an axis."""
    del inner
    axis, parts = eqn.params["axis"], len(eqn.outvars)
    entries = [p.part(inputs[0], axis, 1, i) for i in range(parts)]
    return [x.reshape(result(eqn)) for x in entries]


def split(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
    """Each part as a slice."""
    del inner
    axis, first, parts = eqn.params["axis"], 0, []
    for n in eqn.params["sizes"]:
        size = p.padded((n,))[0]
        parts.append(p.moved(inputs[0], axis, shapes(eqn)[0][axis], size, first=first))
        first += n
    return parts


def row(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
    """x[t] for a t that is known only when it runs, as a masked sum."""
    del inner
    x, *at = inputs
    for axis, (start, size) in enumerate(zip(at, eqn.params["slice_sizes"])):
        if size != shapes(eqn)[0][axis]:
            x = _entry(x, start, axis)
    return [x]


def _entry(x: Array, at: Array, axis: int = 0) -> Array:
    here = lax.broadcasted_iota(jnp.int32, x.shape, axis) == at
    kept = jnp.where(here, x, jnp.zeros_like(x))
    if x.dtype == jnp.bool_:
        return jnp.max(kept.astype(jnp.int32), axis=axis, keepdims=True) > 0
    return jnp.sum(kept, axis=axis, keepdims=True)


def take(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
    """x[:, index]."""
    del inner
    x, index = inputs
    x = p.masked(x, shapes(eqn)[0], (1,))
    return [p.along(_chosen(index, x.shape[1]), x, 1)]


def put(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
    """x.at[:, index].add(y), the derivative of `take`."""
    del inner
    x, index, y = inputs
    y = p.masked(y, shapes(eqn)[2], (1,))
    chosen = _chosen(index, x.shape[1]).astype(x.dtype)
    return [x + p.product(y, chosen, precision=lax.Precision.HIGHEST)]


def _chosen(index: Array, size: int) -> Array:
    index = index.reshape(math.prod(index.shape), 1)
    return index == lax.broadcasted_iota(jnp.int32, (index.shape[0], size), 1)


def scan(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate):
    """A loop over a carry: what it reads and writes step by step are entries of whole arrays."""
    constants, first, xs = loop_parts(eqn, inputs)
    length, reverse, body = eqn.params["length"], eqn.params["reverse"], eqn.params["jaxpr"]
    kept = [var.aval for var in eqn.outvars[len(first) :]]
    own = [var.aval.shape[1:] for var in eqn.invars[len(constants) + len(first) :]]  # pyright: ignore

    def step(i, state):
        carry, ys = state
        t = length - 1 - i if reverse else i
        now = [_entry(x, t).reshape(p.padded(s)) for x, s in zip(xs, own)]
        out = inner(body, *constants, *carry, *now)
        ys = [
            jnp.where(lax.broadcasted_iota(jnp.int32, y.shape, 0) == t, new[None], y)
            for y, new in zip(ys, out[len(carry) :])
        ]
        return list(out[: len(carry)]), ys

    ys = [jnp.zeros(p.padded(y.shape), y.dtype) for y in kept]  # pyright: ignore
    carry, ys = lax.fori_loop(0, length, step, (list(first), ys))
    return [*carry, *ys]


def _lowest(dtype: jnp.dtype) -> Any:
    return -jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).min


def _highest(dtype: jnp.dtype) -> Any:
    return jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).max


REWRITES: dict[str, Operation] = {
    **CALLS,
    "custom_linear_solve": linear_solve,
    "cond": cond,
    "while": repeat,
    "scan": scan,
    "dot_general": product,
    "reduce_sum": reduced(lambda dtype: 0),
    "reduce_max": reduced(_lowest),
    "reduce_min": reduced(_highest),
    "reduce_or": any_or_all("any"),
    "reduce_and": any_or_all("all"),
    "broadcast_in_dim": broadcast,
    "iota": iota,
    "reshape": shaped,
    "squeeze": shaped,
    "transpose": transpose,
    "slice": cut,
    "pad": pad,
    "concatenate": concatenate,
    "split": split,
    "stack": stack,
    "unstack": unstack,
    "dynamic_slice": row,
    "dynamic_update_slice": put_row,
    "gather": take,
    "scatter-add": put,
}


def can_shape(eqn: JaxprEqn) -> bool:
    """Whether a change of shape leaves entries where they are also in padded arrays."""
    (old,), new = shapes(eqn), eqn.outvars[0].aval.shape  # pyright: ignore
    if [n for n in old if n > 1] == [n for n in new if n > 1]:
        return True
    return _behind(old, new)


def _behind(old: tuple[int, ...], new: tuple[int, ...]) -> bool:
    """Whether dimensions that are split or merged are powers of two, all others the same."""
    old, new = (tuple(n for n in shape if n > 1) for shape in (old, new))
    while old and new and old[-1] == new[-1]:
        old, new = old[:-1], new[:-1]
    while old and new and old[0] == new[0]:
        old, new = old[1:], new[1:]
    return p.padded(old) == old and p.padded(new) == new


# The forms of an operation that its rewrite takes, where it does not take all.
FORMS: dict[str, Callable[[JaxprEqn], bool]] = {
    "gather": is_take,
    "scatter-add": is_put,
    "dynamic_slice": is_row,
    "dynamic_update_slice": is_put_row,
    "reshape": can_shape,
    "squeeze": can_shape,
}

# What Triton lowers as it is (jax 0.10): entry by entry.
LOWERED = frozenset(
    word
    for line in (
        "abs add add_any and atan2 bitcast_convert_type ceil clamp convert_element_type cos div eq",
        "erf_inv exp exp2 expm1 floor ge gt integer_pow is_finite le log log1p logistic lt max min",
        "mul ne neg not one_minus_square or pow rem reshard rsqrt select_n shift_left",
        "shift_right_arithmetic shift_right_logical sign sin sqrt square stop_gradient sub tan",
        "tanh xor",
    )
    for word in line.split()
)

TRITON = Compiler("GPU", LOWERED, REWRITES, FORMS)


def run(jaxpr: Jaxpr, constants: Sequence[Any], *args: Any) -> list[Any]:
    """The results of a jaxpr in a GPU kernel, padded."""
    return evaluate(functools.partial(rewritten, REWRITES), jaxpr, constants, *args)
