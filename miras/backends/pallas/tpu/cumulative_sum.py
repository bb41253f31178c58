"""The TPU form of a cumulative sum: within registers by doubling, then from one to the next.

It takes the place of a product with a triangular matrix, three passes of the matrix units. Chosen
on 2026-11-22 by `python -m benchmarks.tpu_schedule` (v5e, jax 0.10.2, libtpu 0.0.42).
"""

import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import tpu as pltpu

from miras.array_typing import Array
from miras.backends.pallas.target import ROWS


def cumulative_sum(x: Array) -> Array:
    """Sums over rows up to each, of x [C, D] whose C is a multiple of a register's rows."""
    blocks = x.reshape(-1, ROWS, x.shape[1])
    at = lax.broadcasted_iota(jnp.int32, (1, ROWS, x.shape[1]), 1)
    for by in (1, 2, 4):
        blocks = blocks + jnp.where(at >= by, pltpu.roll(blocks, by, 1), 0.0)
    parts = [blocks[0]]
    for i in range(1, blocks.shape[0]):
        parts.append(blocks[i] + parts[-1][-1:])
    return jnp.concatenate(parts, axis=0)
