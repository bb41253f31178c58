"""Strength: how far a rule's writes move its answers towards the values, by the inner rate."""

import functools
import math
from typing import NamedTuple

import numpy as np

from miras.analysis.strength import probe
from miras.config import require
from miras.rule.rule import Rule

FLAT = 1.1  # of s between a tenth and ten times a rate: steps whose length ignores the rate


class Strength(NamedTuple):
    """The write strength of a rule, and its curve over rates.

    Attributes:
        rate: eta, the algorithm's `lr`.
        value: s(eta), 1 where every pair written is answered in full.
        gain: s(eta) / eta, what one unit of the rate is worth.
        rates: [N], ascending.
        values: s at each of them, [N], up to the first that is not finite.
        peak: the largest s, also of a curve that only saturates; None where s grows past 1, as in a
            memory without a norm.
        peak_rate: the rate of the peak; None without one.
        flat: whether s does not depend on the rate around eta, as with steps of a set length.
    """

    rate: float
    value: float
    gain: float
    rates: np.ndarray
    values: np.ndarray
    peak: float | None
    peak_rate: float | None
    flat: bool

    def limit(self, chunk: int) -> float:
        """The largest s that a start should have: half of the peak, or 1 / chunk without one.

        Above half of the peak, rates that training may learn are past it. Without a norm nothing
        bounds the answer: C equal keys of one chunk, all at its snapshot, add up to C s.
        """
        return 1 / chunk if self.peak is None else self.peak / 2


def strength(
    rule: Rule, d: int, *, chunk: int = probe.TOKENS, lr_by_position: bool = False
) -> Strength:
    """Measure the write strength of a rule.

        s(eta) = sum_{i,h} <M_eta(k_i) - M_0(k_i), v_i> / sum_{i,h} |v_i|^2

    over 64 random unit keys and values of unit variance per head, all written as one chunk at the
    rate eta, with every other gate at its start. Raw rates of different losses, memories and links
    do not compare; s does.

    Args:
        rule: the four parts.
        d: width of keys and values of a head, >= 1.
        chunk: of the layer; only factors by position depend on it.
        lr_by_position: whether the layer divides rates by the position in the chunk.

    Raises:
        ConfigError: the rule has no rate, or its memory does not allow dk = dv = d.
    """
    require(isinstance(d, int) and d >= 1, f"d={d!r} must be a whole number of at least 1.")
    return _strength(rule, d, chunk, lr_by_position)


@functools.lru_cache(maxsize=256)
def _strength(rule: Rule, d: int, chunk: int, lr_by_position: bool) -> Strength:
    measured = probe.measure(rule, d, chunk=chunk, lr_by_position=lr_by_position)
    rate = rule.algorithm.lr
    found = measured(np.array([rate / 10, rate, 10 * rate, *probe.grid()]))
    around, values = found[:3], found[3:]
    finite = np.isfinite(values)
    count = len(values) if finite.all() else int(np.argmin(finite))
    rates, values = probe.grid()[:count], values[:count]
    at = int(np.argmax(values)) if count else 0
    most = float(values[at]) if count else 0.0
    bounded = most <= 1
    return Strength(
        rate=rate,
        value=float(around[1]),
        gain=float(around[1]) / rate,
        rates=rates,
        values=values,
        peak=most if bounded else None,
        peak_rate=float(rates[at]) if bounded and count else None,
        flat=bool(around.max() < FLAT * around.min()),
    )


def rate_of(
    rule: Rule, d: int, target: float, *, chunk: int = probe.TOKENS, lr_by_position: bool = False
) -> float:
    """The smallest rate at which s reaches a target; infinite where no rate of the curve does.

    The curve brackets the rate, a finer one inside the bracket does so again, and between its two
    points, 1 % apart, log s is taken as linear in log eta.

    Args:
        rule: the four parts; its own rate plays no role.
        d: width of a head.
        target: of s, > 0.
        chunk: as of `strength`.
        lr_by_position: as of `strength`.
    """
    found = strength(rule, d, chunk=chunk, lr_by_position=lr_by_position)
    at = _reached(found.values, target)
    if not at:
        return math.inf if at is None else float(found.rates[0])
    measured = probe.measure(rule, d, chunk=chunk, lr_by_position=lr_by_position)
    rates = np.geomspace(found.rates[at - 1], found.rates[at], probe.ROWS)
    values = measured(rates)
    at = _reached(values, target)
    if not at:  # rounding at an end of the bracket
        return float(rates[-1 if at is None else 0])
    low, high = values[at - 1], values[at]
    share = math.log(target / low) / math.log(high / low) if low > 0 else 1.0
    return float(rates[at - 1] * (rates[at] / rates[at - 1]) ** share)


def _reached(values: np.ndarray, target: float) -> int | None:
    """The first index at which a value reaches the target."""
    reached = np.nan_to_num(values, nan=-np.inf, posinf=np.inf) >= target
    return int(np.argmax(reached)) if reached.any() else None
