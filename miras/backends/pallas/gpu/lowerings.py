"""Triton's lowerings, on padded arrays, of what computes; `data_movement` has those of what moves.

Inputs and results of a rule are padded, see `padded`; the equation has their shapes without
padding. Elementwise operations are the same in both.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.extend.core import Jaxpr, JaxprEqn

from miras.array_typing import Array
from miras.backends.pallas.gpu import padded as p
from miras.backends.pallas.gpu.data_movement import entry
from miras.backends.pallas.gpu.triton import TRITON, in_shapes, padded_result
from miras.backends.pallas.trace.jaxprs import Evaluate, evaluate, unpack_scan_inputs
from miras.backends.pallas.trace.lowerings import LoweringRule


def evaluate_on_gpu(
    jaxpr: Jaxpr, constants: Sequence[Any], *args: Any, **options: Any
) -> list[Any]:
    """The results of a jaxpr in a GPU kernel, padded; options as of `evaluate`."""
    return evaluate(TRITON, jaxpr, constants, *args, **options)


def reshapes_padded(eqn: JaxprEqn) -> bool:
    """Whether a reshape moves no entry of the padded arrays either."""
    (old,), new = in_shapes(eqn), eqn.outvars[0].aval.shape  # pyright: ignore
    if [n for n in old if n > 1] == [n for n in new if n > 1]:
        return True
    return _regroups_powers_of_two(old, new)


def _regroups_powers_of_two(old: tuple[int, ...], new: tuple[int, ...]) -> bool:
    """Whether dimensions that are split or merged are powers of two, all others the same."""
    old, new = (tuple(n for n in shape if n > 1) for shape in (old, new))
    while old and new and old[-1] == new[-1]:
        old, new = old[:-1], new[:-1]
    while old and new and old[0] == new[0]:
        old, new = old[1:], new[1:]
    return p.padded(old) == old and p.padded(new) == new


@TRITON.register(lax.dot_general_p)
def dot_general(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """A product of two matrices as it is, once masked; others as sums of products of entries."""
    del evaluate
    (over, batch), (x, y) = eqn.params["dimension_numbers"], inputs
    x, y = (p.masked(a, s, axes) for a, s, axes in zip((x, y), in_shapes(eqn), over))
    options = {key: eqn.params[key] for key in ("precision", "preferred_element_type")}
    if x.ndim == y.ndim == 2 and not batch[0] and len(over[0]) == 1:
        return [p.matmul(x, y, (over[0][0], over[1][0]), **options)]
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


def _reduction(value: Callable[[jnp.dtype], Any]) -> LoweringRule:
    """A reduction, with a value that does not count beyond the shape."""

    def rule(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
        del evaluate
        axes = eqn.params["axes"]
        (x,), (shape,) = inputs, in_shapes(eqn)
        x = p.masked(x, shape, axes, value(x.dtype))
        return [eqn.primitive.bind(x, **eqn.params)]

    return rule


def _any_or_all(name: str) -> LoweringRule:
    """`or` and `and` of truth values as the largest and the least of numbers."""
    reduce, neutral = (jnp.max, 0) if name == "any" else (jnp.min, 1)

    def rule(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
        del evaluate
        axes = eqn.params["axes"]
        x = p.masked(inputs[0].astype(jnp.int32), in_shapes(eqn)[0], axes, neutral)
        return [reduce(x, axis=axes) > 0]

    return rule


@TRITON.register(lax.broadcast_in_dim_p)
def broadcast_in_dim(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """A broadcast to the padded shape."""
    del evaluate
    return [lax.broadcast_in_dim(inputs[0], padded_result(eqn), eqn.params["broadcast_dimensions"])]


@TRITON.register(lax.iota_p)
def iota(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """Positions in the padded shape."""
    del inputs, evaluate
    index = lax.broadcasted_iota(jnp.int32, padded_result(eqn), eqn.params["dimension"])
    return [index.astype(eqn.params["dtype"])]


@TRITON.register(lax.reshape_p, lax.squeeze_p, supports=reshapes_padded)
def reshape(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """A reshape to the padded shape: `reshapes_padded` says that entries stay where they are."""
    del evaluate
    x, shape = inputs[0], padded_result(eqn)
    if x.shape == shape:
        return [x]
    return [jnp.sum(x) if not shape else x.reshape(shape)]


@TRITON.register(lax.transpose_p)
def transpose(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """The same; none where no dimension moves."""
    del evaluate
    order = eqn.params["permutation"]
    return [inputs[0] if order == tuple(range(len(order))) else jnp.transpose(inputs[0], order)]


@TRITON.register(lax.scan_p)
def scan(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """A loop over a carry: what it reads and writes step by step are entries of whole arrays."""
    constants, first, xs = unpack_scan_inputs(eqn, inputs)
    length, reverse, body = eqn.params["length"], eqn.params["reverse"], eqn.params["jaxpr"]
    kept = [var.aval for var in eqn.outvars[len(first) :]]
    own = [var.aval.shape[1:] for var in eqn.invars[len(constants) + len(first) :]]  # pyright: ignore

    def step(i, state):
        carry, ys = state
        t = length - 1 - i if reverse else i
        now = [entry(x, t).reshape(p.padded(s)) for x, s in zip(xs, own)]
        out = evaluate(body, *constants, *carry, *now)
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


TRITON.register(lax.reduce_sum_p)(_reduction(lambda dtype: 0))
TRITON.register(lax.reduce_max_p)(_reduction(_lowest))
TRITON.register(lax.reduce_min_p)(_reduction(_highest))
TRITON.register(lax.reduce_or_p)(_any_or_all("any"))
TRITON.register(lax.reduce_and_p)(_any_or_all("all"))
