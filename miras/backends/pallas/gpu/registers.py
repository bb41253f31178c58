"""How much of a multiprocessor's registers a value takes, and its addresses in memory."""

import math
from typing import Any

from miras.backends.pallas.gpu.padded import padded

# Bytes of the smallest value: of small ones several warps have copies. Chosen on 2026-11-21 by
# `python -m benchmarks.gpu_static` (H200, jax 0.10.2).
LEAST_LIVE = 2048
WARPS = 8  # of a program
THREADS = 32 * WARPS  # of 255 registers each: all that a multiprocessor has
ADDRESS = 8  # bytes
VECTOR = 4  # entries that a thread reads or writes at one address


def register_bytes(aval: Any) -> int:
    """Bytes of registers for an array of this shape; a scalar takes none that count."""
    if not aval.shape:
        return 0
    entries = math.prod(padded(aval.shape))
    return max(4 * entries, LEAST_LIVE)  # a bfloat16, too, takes a register


def product_bytes(aval: Any) -> int:
    """As `register_bytes`, of a value laid out as a product of matrices: 16 x 8 entries a warp."""
    is_matrix = sum(n > 1 for n in aval.shape) > 1
    return max(register_bytes(aval), 4 * WARPS * 16 * 8 if is_matrix else 0)


def address_bytes(aval: Any) -> int:
    """Bytes of registers for the addresses of an array of this shape in memory, of all threads."""
    if not aval.shape:
        return 0
    vectors = max(1, math.prod(padded(aval.shape)) // (THREADS * VECTOR))
    return THREADS * ADDRESS * vectors
