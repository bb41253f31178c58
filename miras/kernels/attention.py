"""Attention in jax's own fused kernels, where the device has one for the call.

Splash attention on TPUs, cuDNN's on NVIDIA GPUs; elsewhere the engine's own forms.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from miras.kernels.target import capability, platform
from miras.typing import Array

_CUDNN, _HOPPER = 8.0, 9.0  # compute capabilities
_LANES = 128  # of a TPU's register


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
        k: [B, T, H, Dk].
        v: [B, T, H, Dv].
        front: persistent keys and values [H, P, Dk or Dv], which every query sees.
        window: tokens that a query sees, its own among them; None for all before.
        segment: [B, T] ids, over whose edges nothing is seen; None for one segment.
        scale: of the scores.
        interpret: run a TPU's kernel on any device, slowly.

    Returns:
        [B, T, H, Dv], or None.
    """
    device = "tpu" if interpret else platform()
    known = q.dtype in (jnp.float32, jnp.bfloat16)
    if device == "tpu" and known and q.shape == k.shape and q.shape[1] % _LANES == 0:
        from miras.kernels.splash import splash  # a second of imports that only its users pay for

        return splash(
            q, k, v, front, window=window, segment=segment, scale=scale, interpret=interpret
        )
    bare = front is None and segment is None and q.shape == k.shape == v.shape
    if device == "gpu" and bare and _cudnn_takes(q):
        local = None if window is None else (window - 1, 0)
        return jax.nn.dot_product_attention(
            q, k, v, scale=scale, is_causal=True, local_window_size=local, implementation="cudnn"
        )
    return None


def implementation(q: Array, k: Array) -> Literal["cudnn"] | None:
    """Of `jax.nn.dot_product_attention` under a mask, for q [B, T, H, D] and k [B, S, H, D].

    None is jax's own choice, which is XLA's form.
    """
    even = q.shape[1] % 2 == 0 and k.shape[1] % 2 == 0  # as cuDNN asks where there is a mask
    return "cudnn" if platform() == "gpu" and even and _cudnn_takes(q) else None


def _cudnn_takes(q: Array) -> bool:
    """Whether cuDNN of this GPU has attention for queries of such a type and width."""
    here = capability() or 0
    widest = 256 if here >= _HOPPER else 128
    return (
        here >= _CUDNN
        and q.dtype == jnp.bfloat16
        and q.shape[-1] % 8 == 0
        and q.shape[-1] <= widest
    )
