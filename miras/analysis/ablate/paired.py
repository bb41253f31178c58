"""Paired differences of cells to a base cell, and what a number of seeds can see of them.

Runs of one seed share their initialisation, the order of their training and, as all runs do, their
held-out data. What a seed does to both cells alike therefore cancels in the difference of the two.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from miras.analysis.ablate.estimate import Estimate, estimate

ALPHA = 0.05  # of a two-sided test
POWER = 0.8


class Difference(NamedTuple):
    """The difference of a cell to the base.

    Attributes:
        estimate: mean of the differences over the seeds that both have, and its interval.
        values: of these seeds.
        spread: their standard deviation; None for a single seed.
        p: of the two-sided t test that the mean is 0; None for a single seed.
        holm: `p` corrected for the number of cells; None for a single seed.
    """

    estimate: Estimate
    values: tuple[float, ...]
    spread: float | None
    p: float | None
    holm: float | None = None

    @property
    def seeds(self) -> int:
        """Number of seeds that both have."""
        return len(self.values)

    @property
    def significant(self) -> bool:
        """Whether the corrected p is at most 0.05."""
        return self.holm is not None and self.holm <= ALPHA


def difference(
    values: Sequence[float] | np.ndarray, base: Sequence[float] | np.ndarray
) -> Difference | None:
    """The difference of a cell to the base, by seed; None if they have no seed in common.

        d_i = values_i - base_i,    t = mean(d) sqrt(n) / s_d,    p = 2 P(T_{n-1} > |t|)

    Args:
        values: the metric of the cell by seed, [seeds]; NaN where a seed is missing.
        base: that of the base.
    """
    d = np.asarray(values, np.float64) - np.asarray(base, np.float64)
    d = d[np.isfinite(d)]
    n = len(d)
    if n == 0:
        return None
    if n == 1:
        return Difference(estimate(d), (float(d[0]),), None, None)
    spread = float(d.std(ddof=1))
    if spread == 0:
        p = float(d[0] == 0)
    else:
        t = abs(float(d.mean())) * math.sqrt(n) / spread
        p = min(1.0, 2 * float(special.stdtr(n - 1, -t)))
    return Difference(estimate(d), tuple(map(float, d)), spread, p)


def corrected(differences: Sequence[Difference | None]) -> list[Difference | None]:
    """The differences with p values by Holm's method (Scandinavian J. Statistics, 1979).

    Of m sorted values, the k-th is

        holm_(k) = max_{j <= k} min(1, (m - j + 1) p_(j)),

    so that the probability of one or more false ones among those at most alpha is at most alpha.
    """
    values = iter(holm([d.p for d in differences if d is not None and d.p is not None]))
    return [d if d is None or d.p is None else d._replace(holm=next(values)) for d in differences]


def holm(p: Sequence[float]) -> list[float]:
    """Holm's corrected values of p values, in the order given."""
    found, largest = [0.0] * len(p), 0.0
    for place, n in enumerate(sorted(range(len(p)), key=lambda n: p[n])):
        largest = max(largest, min(1.0, (len(p) - place) * p[n]))
        found[n] = largest
    return found


def pooled_spread(differences: Sequence[Difference | None]) -> float | None:
    """The standard deviation of a difference over seeds, from those of all cells.

        s^2 = sum_k (n_k - 1) s_k^2 / sum_k (n_k - 1)

    None if no cell has two seeds.
    """
    known = [(d.seeds - 1, d.spread) for d in differences if d is not None and d.spread is not None]
    if not known:
        return None
    return math.sqrt(sum(n * s * s for n, s in known) / sum(n for n, _ in known))


def detectable(spread: float, seeds: int, alpha: float = ALPHA, power: float = POWER) -> float:
    """The smallest true difference that a paired t test finds with a probability.

        min { delta : P(|T| > t_{1 - alpha/2, n-1}) >= power },    T ~ noncentral t, n - 1 degrees,
                                                                   delta sqrt(n) / spread

    Args:
        spread: standard deviation of a difference over seeds, >= 0.
        seeds: number of pairs n, >= 2.
        alpha: of the two-sided test, in (0, 1).
        power: the probability, in (alpha, 1).
    """
    limit = float(special.stdtrit(seeds - 1, 1 - alpha / 2))

    def found(shift: float) -> float:
        """The power; the other tail, which is left out, adds less than 1e-5 where it is 0.8."""
        return 1 - float(special.nctdtr(seeds - 1, shift, limit))

    low, high = 0.0, 1.0
    while found(high) < power:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if found(middle) < power else (low, middle)
    return high * spread / math.sqrt(seeds)
