"""Tolerances of comparisons, derived from the dtype and from how much is summed."""

import math

import jax.numpy as jnp


def tolerance(dtype, reduced_length: int = 1, factor: float = 1.0) -> float:
    """The error to expect of a sum of rounded terms: eps * sqrt(reduced_length) * factor.

    Args:
        dtype: in which the terms are rounded.
        reduced_length: terms of the longest sum on the way to the result.
        factor: rounded operations in a row, or how far the inputs' size exceeds the result's.
    """
    return float(jnp.finfo(dtype).eps) * math.sqrt(reduced_length) * factor
