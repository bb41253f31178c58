"""A description of this machine's CPU, by measuring a product and a copy."""

import os
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from miras.analysis.plan.chips import Chip

_SIZE = 1024  # of the matrices
_ENTRIES = 2**24  # of the array that is copied, float32
_SMALL = 64  # of the matrices whose rate is that of memories


def measured() -> Chip:
    """The CPU as jax uses it: FLOP/s of large and small float32 products, bytes/s of a copy."""
    cpu = jax.devices("cpu")[0]
    with jax.default_device(cpu):
        x = jnp.ones((_SIZE, _SIZE))
        flops = 2 * _SIZE**3 / _seconds(lambda x: x @ x, x)
        y = jnp.ones((4, _SMALL, _SMALL))
        small = 64 * 4 * 2 * _SMALL**3 / _seconds(_loop, y)
        z = jnp.ones(_ENTRIES)
        copied = 8 * _ENTRIES / _seconds(lambda z: z + 1, z)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Chip(
        name="cpu",
        flops=flops,
        hbm=float(memory),
        bandwidth=copied,
        efficiency=0.9,
        small=min(1.0, small / flops),
        source="measured here, just now",
    )


def _loop(y: Any) -> Any:
    """Products that depend on each other, as those of chunks do."""
    return jax.lax.scan(lambda y, _: (jnp.tanh(y @ y), None), y, None, length=64)[0]


def _seconds(function: Callable[[Any], Any], x: Any) -> float:
    run = jax.jit(function)
    run(x).block_until_ready()
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        run(x).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return best
