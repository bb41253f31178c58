"""A mean over seeds, and its 95 % confidence interval by Student's t."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

LEVEL = 0.95


class Estimate(NamedTuple):
    """A mean over seeds.

    Attributes:
        mean: of the metric.
        half: half-width of the confidence interval; None for a single seed.
    """

    mean: float
    half: float | None


def estimate(values: Sequence[float] | np.ndarray) -> Estimate:
    """The mean of independent values, at least one, and the half-width of its interval.

    half = t_{0.975, n-1} s / sqrt(n),    s^2 = sum_i (x_i - mean)^2 / (n - 1)
    """
    values = np.asarray(values, np.float64)
    n = len(values)
    if n == 1:
        return Estimate(float(values[0]), None)
    quantile = float(special.stdtrit(n - 1, (1 + LEVEL) / 2))
    return Estimate(float(values.mean()), quantile * float(values.std(ddof=1)) / math.sqrt(n))
