"""Attention in a fused kernel, where the device has one for the call.

Splash attention on TPUs; cuDNN's on NVIDIA GPUs, and in Triton what cuDNN does not take; elsewhere
the engine's own forms.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from miras.array_typing import Array
from miras.backends.pallas.interpreter import interpreting
from miras.backends.pallas.target import CAPABILITY, LANES, capability, platform
from miras.engine.devices import varies
from miras.parallel.shard import HEADS, ROWS, over_mesh
from miras.runtime.log import log_once

_STREAM = PartitionSpec(ROWS, None, HEADS)
# Of q, k, v, front and segment, as `fused` has them.
Kernel = Callable[[Array, Array, Array, tuple[Array, Array] | None, Array | None], Array]
WIDEST = 256  # channels of a head, in Triton


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

    The log says which it was, and why no other.

    Args:
        q: [B, T, H, Dk].
        k: [B, N T, K, Dk]: of a token N keys, the first of all tokens, then the second, and so on;
            each of the K heads serves H / K heads of queries, which are neighbours.
        v: [B, N T, K, Dv].
        front: persistent keys and values [K, P, Dk or Dv], which every query sees.
        window: tokens that a query sees, its own among them; None for all before.
        segment: [B, T] ids, over whose edges nothing is seen; None for one segment.
        scale: of the scores.
        interpret: run a TPU's kernel on any device, slowly; a GPU's, see `interpreter`.

    Returns:
        [B, T, H, Dv], or None. On TPUs T is a multiple of 128.
    """
    device = "tpu" if interpret else "gpu" if interpreting() == "gpu" else platform()
    kernel: Kernel | None = None
    if device == "tpu":
        kernel = _on_tpu(q, window, scale, interpret)
    elif device == "gpu":
        kernel = _on_gpu(q, k, v, front, window, segment, scale)
    if kernel is None:
        return None
    return over_mesh(
        kernel,
        (q, k, v, front, segment),
        (_STREAM, _STREAM, _STREAM, PartitionSpec(HEADS), PartitionSpec(ROWS)),
        _STREAM,
        rows=q.shape[0],
        heads=math.gcd(q.shape[2], k.shape[2]),
    )


def _on_tpu(q, window, scale, interpret) -> Kernel | None:
    why_not = _not_splash(q)
    if why_not is not None:
        log_once(f"attention by XLA: {why_not}")
        return None
    from miras.attention.splash import splash  # a second of imports that only its users pay for

    log_once("attention by splash")
    run = functools.partial(splash, window=window, scale=scale, interpret=interpret)
    return lambda q, k, v, front, segment: run(q, k, v, front, segment=segment)


def _on_gpu(q, k, v, front, window, segment, scale) -> Kernel | None:
    why_not_cudnn = _not_cudnn(q, k, v, front, segment)
    if why_not_cudnn is None:
        log_once("attention by cuDNN")
        local = None if window is None else (window - 1, 0)
        return lambda q, k, v, front, segment: jax.nn.dot_product_attention(
            q, k, v, scale=scale, is_causal=True, local_window_size=local, implementation="cudnn"
        )
    why_not = _not_triton(q, v)
    if why_not is not None:
        log_once(f"attention by XLA: cuDNN takes {why_not_cudnn}, and {why_not}")
        return None
    from miras.attention.flash import flash

    log_once(f"attention in a Triton kernel: cuDNN takes {why_not_cudnn}")
    run = functools.partial(flash, window=window, scale=scale)
    return lambda q, k, v, front, segment: run(q, k, v, front, segment=segment)


def _not_splash(q: Array) -> str | None:
    """Why splash attention cannot run, if it cannot."""
    if q.dtype not in (jnp.float32, jnp.bfloat16):
        return f"splash takes no {q.dtype}"
    if q.shape[1] % LANES:
        return f"splash takes a multiple of {LANES} tokens, not {q.shape[1]}"
    if varies(q):  # what splash gives does not say along which axes of a mesh it varies
        return "splash does not run inside shard_map"
    return None


def _not_cudnn(q: Array, k: Array, v: Array, front: object, segment: object) -> str | None:
    """What cuDNN of the GPU here does not take, forward and backward, if anything."""
    if segment is not None:
        return "no documents"
    if front is not None:
        return "no persistent tokens"
    if k.shape != v.shape or (q.shape[1], q.shape[3]) != (k.shape[1], k.shape[3]):
        return "keys and values as queries only"
    if q.dtype != jnp.bfloat16:
        return f"no {q.dtype}"
    here, width = capability() or 0, q.shape[-1]
    widest = 256 if 9 <= here < 10 else 128
    if here < 8:
        return "GPUs of compute capability 8 only"
    if width % 8 or width > widest:
        return f"heads of 8, 16 .. {widest} channels only"
    return None


def _not_triton(q: Array, v: Array) -> str | None:
    """Why `flash` cannot run, if it cannot."""
    try:
        from miras.attention import flash  # noqa: F401  Triton may be gone from jax
    except ImportError as missing:
        return f"jax {jax.__version__} lacks what Triton kernels are made of ({missing})"
    if q.dtype not in (jnp.float32, jnp.bfloat16):
        return f"the Triton kernel takes no {q.dtype}"
    width = max(q.shape[-1], v.shape[-1])
    if width > WIDEST:
        return f"the Triton kernel takes heads of up to {WIDEST} channels, not {width}"
    here = None if interpreting() else capability()
    if here is not None and here < CAPABILITY:
        return f"Triton needs a GPU of compute capability {CAPABILITY}, and this one has {here}"
    if here is None and not interpreting() and jax.default_backend() == "gpu":
        return "the Triton kernel is laid out for NVIDIA's GPUs"
    return None
