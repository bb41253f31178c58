"""Splash attention, jax's own for TPUs, also with persistent tokens in front of every document.

A query sees persistent keys wherever it stands, which splash's masks and segments cannot say. So
the softmax is cut in two. With L = log sum_p exp(q k_p) over P persistent keys and o_p their own
softmax's answer, splash takes scores q k_j - L - log c beside a sink of score 0, and gives

    o' = sum_j p_j v_j,    m = sum_j p_j,    p_j = exp(q k_j - L) / (c + sum_i exp(q k_i - L)).

The softmax over all is (c o' + (1 - m) o_p) / (c m + 1 - m) for any c. Where W tokens are in sight,
c = W / P puts m near 1/2, where a bfloat16 knows m and 1 - m alike. -L - log c is a channel more of
q where k has 1, and m one of v.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel,
    splash_attention_mask,
)

from miras.array_typing import Array
from miras.attention.softmax import for_queries
from miras.backends.pallas.target import LANES

_BLOCKS = (512, 256, 128)


def splash(
    q: Array,
    k: Array,
    v: Array,
    front: tuple[Array, Array] | None,
    *,
    window: int | None,
    segment: Array | None,
    scale: float,
    interpret: bool,
) -> Array:
    """As `attention.fused`; T is a multiple of `LANES`, as widths are once they are padded."""
    q, width, length = q * scale, v.shape[-1], q.shape[1]
    if front is None:
        return _run(q, k, v, window, segment, None, interpret)
    keys, values = (for_queries(x, q.shape[2], axis=0) for x in front)
    score = jnp.einsum("bthd,hpd->bthp", q, keys, preferred_element_type=jnp.float32)
    answer = jnp.einsum("bthp,hpd->bthd", jax.nn.softmax(score), values.astype(score.dtype))
    c = min(window or length, length) * (k.shape[1] // length) / keys.shape[1]
    rest = -jax.nn.logsumexp(score, axis=-1, keepdims=True) - math.log(c)
    high = jax.lax.reduce_precision(rest, 8, 7)  # as much as bfloat16 holds, then what is left
    one = jnp.ones((*k.shape[:3], 1), k.dtype)
    q = jnp.concatenate([q, high.astype(q.dtype), (rest - high).astype(q.dtype)], axis=-1)
    k, v = jnp.concatenate([k, one, one], axis=-1), jnp.concatenate([v, one], axis=-1)
    y = _run(q, k, v, window, segment, jnp.zeros(q.shape[2]), interpret).astype(score.dtype)
    y, m = y[..., :width], y[..., width:]
    return ((c * y + (1 - m) * answer) / (c * m + 1 - m)).astype(q.dtype)


def _run(q, k, v, window: int | None, segment, sinks, interpret: bool) -> Array:
    width, times = v.shape[-1], k.shape[1] // q.shape[1]
    q, k, v = (jnp.moveaxis(_padded(x), 2, 1) for x in (q, k, v))
    kernel = _kernel(*q.shape[1:3], times, window, interpret)

    def row(q, k, v, ids):
        if ids is not None:
            ids = splash_attention_kernel.SegmentIds(ids, jnp.tile(ids, times))
        return kernel(q, k, v, segment_ids=ids, sinks=sinks)

    y = jax.vmap(row)(q, k, v, segment)
    return jnp.moveaxis(y, 1, 2)[..., :width].astype(q.dtype)


def _padded(x: Array) -> Array:
    return jnp.pad(x, [(0, 0)] * 3 + [(0, -x.shape[-1] % LANES)])


def _kernel(heads: int, length: int, times: int, window: int | None, interpret: bool):
    block = next(size for size in _BLOCKS if length % size == 0)
    shape = (length, length)
    mask = splash_attention_mask.CausalMask(shape)
    if window is not None:
        mask = splash_attention_mask.LocalMask(shape, (window - 1, 0), 0)
    if times > 1:
        mask = splash_attention_mask.NumpyMask(np.tile(mask[:, :], (1, times)))
    names = ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute", "q_dq", "kv_dq")
    sizes = {f"block_{name}": block for name in names}
    return splash_attention_kernel.make_splash_mha(
        splash_attention_mask.MultiHeadMask([mask] * heads),
        block_sizes=splash_attention_kernel.BlockSizes(**sizes),  # pyright: ignore
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )
