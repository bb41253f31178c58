"""The TPU form of `lax.scan`: a loop over a carry, its scanned arrays in VMEM."""

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.extend.core import JaxprEqn

from miras.array_typing import Array
from miras.backends.pallas.trace.jaxprs import Evaluate, out_avals, unpack_scan_inputs

# Steps at most of a loop with scanned arrays that is unrolled instead. Chosen on 2026-11-21; not
# tuned since.
SHORT = 4


def scan_in_vmem(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """A `scan`'s results; what it reads and writes step by step is put into VMEM first."""
    p = eqn.params
    constants, first, xs = unpack_scan_inputs(eqn, inputs)
    length, body = p["length"], p["jaxpr"]
    if length == 1 or (length <= SHORT and (xs or len(eqn.outvars) > len(first))):
        return _unrolled(eqn, constants, first, xs, evaluate)
    stacked = out_avals(eqn)[len(first) :]

    def loop(x_refs, y_refs):
        for ref, x in zip(x_refs, xs):
            ref[...] = _rows(x).astype(ref.dtype)

        def step(i, carry):
            t = length - 1 - i if p["reverse"] else i
            now = [ref[pl.ds(t, 1)].reshape(_one(x)).astype(x.dtype) for ref, x in zip(x_refs, xs)]
            out = evaluate(body, *constants, *carry, *now)
            for ref, y in zip(y_refs, out[len(first) :]):
                ref[pl.ds(t, 1)] = y.reshape(1, *ref.shape[1:]).astype(ref.dtype)
            return tuple(out[: len(first)])

        end = lax.fori_loop(0, length, step, tuple(first))
        ys = [ref[...].reshape(y.shape).astype(y.dtype) for ref, y in zip(y_refs, stacked)]
        return (*end, *ys)

    return pl.run_scoped(loop, [_scratch(x) for x in xs], [_scratch(y) for y in stacked])


def _unrolled(eqn: JaxprEqn, constants, first, xs, evaluate: Evaluate):
    params, carry, found = eqn.params, list(first), []
    order = range(params["length"])
    for t in reversed(order) if params["reverse"] else order:
        now = [lax.squeeze(lax.slice_in_dim(x, t, t + 1), (0,)) for x in xs]
        out = evaluate(params["jaxpr"], *constants, *carry, *now)
        carry, y = out[: len(first)], out[len(first) :]
        found.append(y)
    found = found[::-1] if params["reverse"] else found
    shapes = out_avals(eqn)[len(first) :]
    stacked = [jnp.stack(y).reshape(s.shape) for y, s in zip(zip(*found), shapes)]
    return [*carry, *stacked]


def _one(x: Array) -> tuple[int, ...]:
    """The shape of x[t], of a vector as a row."""
    return (1, *x.shape[1:]) if x.ndim == 2 else x.shape[1:]


def _rows(x: Array) -> Array:
    """[N, ...] with two dimensions after N, so that a row is a tile of its own."""
    own = x.shape[1:]
    return x.reshape(x.shape[0], *[1] * (2 - len(own)), *own)


def _scratch(x):
    own = x.shape[1:]
    dtype = jnp.int32 if x.dtype == jnp.bool_ else x.dtype
    return pltpu.VMEM((x.shape[0], *[1] * (2 - len(own)), *own), dtype)
