"""Attention in jax's own fused kernels, where the device has one for the call.

Splash attention on TPUs, cuDNN's on NVIDIA GPUs; elsewhere the engine's own forms.
"""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel,
    splash_attention_mask,
)

from miras.kernels.target import capability, platform
from miras.typing import Array

_LANES = 128  # of a TPU's register: blocks of tokens and widths of heads are multiples
_BLOCKS = (512, 256, 128)
_CUDNN = 8.0  # compute capability


def fused(
    q: Array,
    k: Array,
    v: Array,
    *,
    window: int | None,
    segment: Array | None,
    scale: float,
    interpret: bool = False,
) -> Array | None:
    """Causal attention of T tokens to themselves; None where no fused kernel takes it.

    Args:
        q: [B, T, H, D].
        k: [B, T, H, D].
        v: [B, T, H, D].
        window: tokens that a query sees, its own among them; None for all before.
        segment: [B, T] ids, over whose edges nothing is seen; None for one segment.
        scale: of the scores.
        interpret: run a TPU's kernel on any device, slowly.

    Returns:
        [B, T, H, D], or None.
    """
    device = "tpu" if interpret else platform()
    alike = q.shape == k.shape == v.shape and q.dtype in (jnp.float32, jnp.bfloat16)
    if device == "tpu" and alike and q.shape[1] % _LANES == 0:
        return _splash(q, k, v, window, segment, scale, interpret)
    narrow = q.dtype == jnp.bfloat16 and q.shape[-1] % 8 == 0 and q.shape[-1] <= 128
    if device == "gpu" and alike and narrow and segment is None and (capability() or 0) >= _CUDNN:
        local = None if window is None else (window - 1, 0)
        return jax.nn.dot_product_attention(
            q, k, v, scale=scale, is_causal=True, local_window_size=local, implementation="cudnn"
        )
    return None


def _splash(q, k, v, window: int | None, segment, scale: float, interpret: bool) -> Array:
    width = q.shape[-1]
    behind = [(0, 0)] * 3 + [(0, -width % _LANES)]
    q, k, v = (jnp.moveaxis(jnp.pad(x, behind), 2, 1) for x in (q * scale, k, v))
    kernel = _kernel(*q.shape[1:3], window, interpret)
    if segment is None:
        y = jax.vmap(kernel)(q, k, v)
    else:
        ids = splash_attention_kernel.SegmentIds(segment, segment)
        y = jax.vmap(lambda q, k, v, ids: kernel(q, k, v, segment_ids=ids))(q, k, v, ids)
    return jnp.moveaxis(y, 1, 2)[..., :width].astype(q.dtype)


def _kernel(heads: int, length: int, window: int | None, interpret: bool):
    block = next(size for size in _BLOCKS if length % size == 0)
    shape = (length, length)
    mask = splash_attention_mask.CausalMask(shape)
    if window is not None:
        mask = splash_attention_mask.LocalMask(shape, (window - 1, 0), 0)
    names = ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute", "q_dq", "kv_dq")
    sizes = {f"block_{name}": block for name in names}
    return splash_attention_kernel.make_splash_mha(
        splash_attention_mask.MultiHeadMask([mask] * heads),
        block_sizes=splash_attention_kernel.BlockSizes(**sizes),  # pyright: ignore
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )
