"""Flash attention in Triton, where the keys that a query sees are a run that ends with its own.

A window and a document's edge both say where the run begins. Blocks of keys outside of it are never
read, and memory is linear in the text. Beside its answers y a kernel gives the logs L of the sums
of their softmaxes, by which answers from several parts of the keys, as persistent tokens are one,
become those from all: y = sum_n w_n y_n, with w = softmax_n(L_n).

FlashAttention-2 (Dao, arXiv 2307.08691). Others that are to be had cannot do it: `mha` of
jax.experimental.pallas.ops.gpu, which is deprecated, has no windows and no logs to differentiate;
tokamax 0.0.17 makes a mask of T x T for its backward pass in Triton, and goes through all of it.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from miras.array_typing import Array
from miras.attention.softmax import for_queries
from miras.backends.pallas.gpu.padded import LEAST, padded
from miras.backends.pallas.interpreter import interpreting
from miras.engine.devices import varying_alike

# Most bytes of a block of tokens, of one channel and of all: with more, registers are spilled, or
# the 99 KiB of shared memory that smaller GPUs have are too few.
CHANNEL, BLOCK = 2**7, 2**14
LOG2E = math.log2(math.e)
HIDDEN = -1e30  # a score that is as nothing beside any that is seen


def flash(
    q: Array,
    k: Array,
    v: Array,
    front: tuple[Array, Array] | None,
    *,
    window: int | None,
    segment: Array | None,
    scale: float,
) -> Array:
    """As `attention.fused`, for any number of tokens; grouped heads are repeated."""
    length, times = q.shape[1], k.shape[1] // q.shape[1]
    k, v, front = jax.tree.map(lambda x: x.astype(q.dtype), (k, v, front))
    k, v = (for_queries(x, q.shape[2]) for x in (k, v))
    front = jax.tree.map(lambda x: for_queries(x, q.shape[2], axis=0), front)
    runs = _runs(q.shape[0], length, window, segment)
    q, k, v, front, runs = varying_alike((q, k, v, front, runs))
    pairs = zip(jnp.split(k, times, axis=1), jnp.split(v, times, axis=1))
    parts = [_to_runs(q, keys, values, runs, scale) for keys, values in pairs]
    if front is not None:
        parts.append(_to_all(q, *front, scale))
    if len(parts) == 1:
        return parts[0][0]
    answers, logs = zip(*parts)
    weights = jax.nn.softmax(jnp.stack(logs), axis=0)[..., None]
    weighted = [w * y.astype(w.dtype) for w, y in zip(weights, answers)]
    return functools.reduce(jnp.add, weighted).astype(q.dtype)


def _runs(batch: int, length: int, window: int | None, segment: Array | None):
    """The first key that each query sees, and the last query that sees each key, [B, T]."""
    at = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (batch, length))
    first, last = jnp.zeros_like(at), jnp.full_like(at, length - 1)
    if segment is not None:
        edge = segment[:, 1:] != segment[:, :-1]
        begins, ends = (jnp.pad(edge, [(0, 0), sides]) for sides in ((1, 0), (0, 1)))
        first = lax.cummax(jnp.where(begins, at, first), axis=1)
        last = lax.cummin(jnp.where(ends, at, last), axis=1, reverse=True)
    if window is not None:
        first, last = jnp.maximum(first, at - window + 1), jnp.minimum(last, at + window - 1)
    return first, last


def _to_all(q: Array, k: Array, v: Array, scale: float) -> tuple[Array, Array]:
    """Answers [B, T, H, Dv] from keys [H, P, Dk] that all queries see, and logs [B, T, H]."""
    score = scale * jnp.einsum("bthd,hpd->bthp", q, k, preferred_element_type=jnp.float32)
    answer = jnp.einsum("bthp,hpd->bthd", jax.nn.softmax(score), v.astype(score.dtype))
    return answer, jax.nn.logsumexp(score, axis=-1)


def _to_runs(q, k, v, runs: tuple[Array, Array], scale: float) -> tuple[Array, Array]:
    """Answers [B, T, H, Dv] from keys [B, T, H, Dk], and logs [B, T, H]."""
    length, width = v.shape[1], v.shape[-1]
    more = -length % _size(q, v)
    # Tokens that are added see, and are seen by, themselves.
    added = jnp.broadcast_to(jnp.arange(length, length + more, dtype=jnp.int32), (len(v), more))
    first, last = (jnp.concatenate([x, added], axis=1) for x in runs)

    def grown(x: Array) -> Array:
        return jnp.pad(x, [(0, 0), (0, more), (0, 0), (0, _power(x.shape[-1]) - x.shape[-1])])

    y, logs = _attend(grown(q), grown(k), grown(v), first, last, scale)
    return y[:, :length, :, :width], jnp.swapaxes(logs, 1, 2)[:, :length]


def _power(size: int) -> int:
    """The next power of two that Triton's products take."""
    return max(LEAST, *padded((size,)))


def _size(*arrays: Array) -> int:
    """Tokens of a block of arrays [B, T, H, D]."""
    tokens = min(CHANNEL // arrays[0].dtype.itemsize, BLOCK // _row(*arrays))
    return min(max(LEAST, tokens), _power(arrays[0].shape[1]))


def _row(*arrays: Array) -> int:
    """Bytes of a token."""
    return max(_power(x.shape[-1]) * x.dtype.itemsize for x in arrays)


def _run(q, k, v, first, last, scale: float) -> tuple[Array, Array]:
    """Answers [B, T, H, Dv], and logs, float32 [B, H, T], of whole blocks."""
    del last
    batch, length, heads, _ = q.shape
    logs = jax.ShapeDtypeStruct((batch, heads, length), jnp.float32)
    y, logs = _call(_forward, "attention_forward", scale, (q, k, v, first), (v, logs))
    return y, logs


def _run_forward(q, k, v, first, last, scale: float):
    y, logs = _run(q, k, v, first, last, scale)
    return (y, logs), (q, k, v, first, last, y, logs)


def _run_backward(scale: float, kept: Any, given: tuple[Array, Array]):
    *inputs, y, logs = kept
    dy, d_logs = given
    along = jnp.einsum("bthd,bthd->bht", dy, y, preferred_element_type=jnp.float32) - d_logs
    arrays = (*inputs, logs, dy, along)
    return *_call(_backward, "attention_backward", scale, arrays, inputs[:3]), None, None


_attend = jax.custom_vjp(_run, nondiff_argnums=(5,))
_attend.defvjp(_run_forward, _run_backward)


def _call(kernel: Callable[..., None], name: str, scale: float, inputs: Any, outputs: Any):
    """Run a kernel for each block of tokens of each row and head, which sees whole inputs."""
    batch, length, heads, _ = inputs[0].shape
    size, wide = _size(*inputs[:3]), _row(*inputs[:3]) >= 256
    inputs = varying_alike(tuple(inputs))
    varies = jax.typeof(inputs[0]).manual_axis_type  # pyright: ignore

    def shape(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, manual_axis_type=varies)  # pyright: ignore

    def spec(x: Any, tokens: int) -> pl.BlockSpec:
        nth = (lambda i: 0) if tokens == length else (lambda i: i)
        if x.ndim == 4:
            block = (None, tokens, None, x.shape[3])
            return pl.BlockSpec(block, lambda i, b, h: (b, nth(i), h, 0))
        if x.ndim == 3:
            return pl.BlockSpec((None, None, tokens), lambda i, b, h: (b, h, nth(i)))
        return pl.BlockSpec((None, tokens), lambda i, b, h: (b, nth(i)))

    return pl.pallas_call(
        functools.partial(kernel, size=size, scale=scale),
        out_shape=[shape(x) for x in outputs],
        grid=(length // size, batch, heads),
        in_specs=[spec(x, length) for x in inputs],
        out_specs=[spec(x, size) for x in outputs],
        compiler_params=plgpu.CompilerParams(num_warps=8 if wide else 4, num_stages=2),
        interpret=bool(interpreting()),
        name=f"miras_{name}",
    )(*inputs)


def _forward(q, k, v, first, y, logs, *, size: int, scale: float) -> None:
    """A block of queries, and the keys that they see."""
    own = pl.program_id(0)
    mine, query = _block(own, size)
    q_own, first_own = q[mine, :], first[mine]

    def step(i: Array, carry: tuple[Array, ...]):
        answer, peak, total = carry
        at, key = _block(i, size)
        seen = (first_own[:, None] <= key[None]) & (key[None] <= query[:, None])
        score = jnp.where(seen, _product(q_own, k[at, :].T) * (scale * LOG2E), HIDDEN)
        higher = jnp.maximum(peak, jnp.max(score, axis=1))
        less, weight = jnp.exp2(peak - higher), jnp.exp2(score - higher[:, None])
        values = v[at, :]
        answer = answer * less[:, None] + _product(weight.astype(values.dtype), values)
        return answer, higher, total * less + jnp.sum(weight, axis=1)

    answer, total = jnp.zeros(y.shape, jnp.float32), jnp.zeros(size, jnp.float32)
    nothing = answer, jnp.full(size, HIDDEN, jnp.float32), total
    answer, peak, total = lax.fori_loop(jnp.min(first_own) // size, own + 1, step, nothing)
    y[...] = (answer / total[:, None]).astype(y.dtype)
    logs[...] = peak / LOG2E + jnp.log(total)


def _backward(
    q, k, v, first, last, logs, dy, along, dq, dk, dv, *, size: int, scale: float
) -> None:
    """A block of keys and the queries that see them, then its queries and the keys they see."""
    own = pl.program_id(0)
    mine, token = _block(own, size)
    k_own, v_own, last_own = k[mine, :], v[mine, :], last[mine]

    def by_query(i: Array, carry: tuple[Array, Array]):
        at, query = _block(i, size)
        seen = (token[:, None] <= query[None]) & (query[None] <= last_own[:, None])
        q_at, dy_at = q[at, :], dy[at, :]
        score = _product(k_own, q_at.T) * scale - logs[at][None]
        weight = jnp.where(seen, jnp.exp2(score * LOG2E), 0.0)
        d_score = weight * (_product(v_own, dy_at.T) - along[at][None])
        dk, dv = carry
        dv += _product(weight.astype(dy_at.dtype), dy_at)
        return dk + _product(d_score.astype(q_at.dtype), q_at), dv

    nothing = jnp.zeros(dk.shape, jnp.float32), jnp.zeros(dv.shape, jnp.float32)
    dk_own, dv_own = lax.fori_loop(own, jnp.max(last_own) // size + 1, by_query, nothing)
    dk[...] = (dk_own * scale).astype(dk.dtype)
    dv[...] = dv_own.astype(dv.dtype)

    q_own, dy_own, first_own = q[mine, :], dy[mine, :], first[mine]
    logs_own, along_own = logs[mine][:, None], along[mine][:, None]

    def by_key(i: Array, dq: Array):
        at, key = _block(i, size)
        seen = (first_own[:, None] <= key[None]) & (key[None] <= token[:, None])
        k_at = k[at, :]
        score = _product(q_own, k_at.T) * scale - logs_own
        weight = jnp.where(seen, jnp.exp2(score * LOG2E), 0.0)
        d_score = weight * (_product(dy_own, v[at, :].T) - along_own)
        return dq + _product(d_score.astype(k_at.dtype), k_at)

    nothing = jnp.zeros(dq.shape, jnp.float32)
    dq_own = lax.fori_loop(jnp.min(first_own) // size, own + 1, by_key, nothing)
    dq[...] = (dq_own * scale).astype(dq.dtype)


def _block(i: Array | int, size: int):
    """The i-th block of tokens, and their numbers."""
    return pl.ds(i * size, size), i * size + lax.iota(jnp.int32, size)


def _product(x: Array, y: Array) -> Array:
    return lax.dot(x, y, preferred_element_type=jnp.float32)
