"""Attention in jax's own fused kernels, where the device has one for the call.

Splash attention on TPUs, cuDNN's on NVIDIA GPUs; elsewhere the engine's own forms.
"""

import jax
import jax.numpy as jnp

from miras.engine.devices import varies
from miras.kernels.target import LANES, capability, platform
from miras.typing import Array


def fused(
    q: Array,
    k: Array,
    v: Array,
    front: tuple[Array, Array] | None = None,
    *,
    window: int | None,
    segment: Array | None,
    scale: float,
    interpret: bool = False,
) -> Array | None:
    """Causal attention of T tokens to themselves; None where no kernel skips what is not seen.

    Args:
        q: [B, T, H, Dk].
        k: [B, N T, H, Dk]: of a token N keys, the first of all tokens, then the second, and so on.
        v: [B, N T, H, Dv].
        front: persistent keys and values [H, P, Dk or Dv], which every query sees.
        window: tokens that a query sees, its own among them; None for all before.
        segment: [B, T] ids, over whose edges nothing is seen; None for one segment.
        scale: of the scores.
        interpret: run a TPU's kernel on any device, slowly.

    Returns:
        [B, T, H, Dv], or None. On TPUs T is a multiple of 128.
    """
    device = "tpu" if interpret else platform()
    if device == "tpu" and _splash_takes(q):
        from miras.kernels.splash import splash  # a second of imports that only its users pay for

        return splash(
            q, k, v, front, window=window, segment=segment, scale=scale, interpret=interpret
        )
    if device == "gpu" and front is None and segment is None and _cudnn_takes(q, k, v):
        local = None if window is None else (window - 1, 0)
        return jax.nn.dot_product_attention(
            q, k, v, scale=scale, is_causal=True, local_window_size=local, implementation="cudnn"
        )
    return None


def _splash_takes(q: Array) -> bool:
    """Whether splash attention can run."""
    known = q.dtype in (jnp.float32, jnp.bfloat16)
    # What splash gives does not say along which axes of a mesh it varies.
    return known and q.shape[1] % LANES == 0 and not varies(q)


def _cudnn_takes(q: Array, k: Array, v: Array) -> bool:
    """Whether cuDNN of the GPU here has the attention, forward and backward."""
    here, width = capability() or 0, q.shape[-1]
    widest = 256 if 9 <= here < 10 else 128
    alike = q.shape == k.shape == v.shape and q.dtype == jnp.bfloat16
    return here >= 8 and alike and width % 8 == 0 and width <= widest
