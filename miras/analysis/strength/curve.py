"""Strength: how far a rule's writes move its answers towards the values, by the inner rate."""

import math
from typing import NamedTuple

import numpy as np

from miras.analysis.strength import probe
from miras.config import require
from miras.rule.rule import Rule

FLAT = 1.1  # of s between a tenth and ten times a rate: steps whose length ignores the rate
REFINED = 2  # times that the crossing's bracket is divided by ROWS


class Strength(NamedTuple):
    """The write strength of a rule, and its curve over rates.

    Attributes:
        rate: eta, the algorithm's `lr`.
        value: s(eta), 1 where every pair written is answered in full.
        gain: s(eta) / eta, what one unit of the rate is worth.
        rates: [N], ascending.
        values: s at each of them, [N], up to the first that is not finite.
        peak: the largest s; None where s grows past 1 without one, as in a memory without a norm.
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
    """Measure the write strength of a rule, DESIGN of which is in docs/strength.md.

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
    measured = probe.measure(rule, d, chunk=chunk, lr_by_position=lr_by_position)
    rate = rule.algorithm.lr
    value, low, high = measured(np.array([rate, rate / 10, 10 * rate]))
    rates = probe.grid()
    values = measured(rates)
    finite = np.isfinite(values)
    count = len(values) if finite.all() else int(np.argmin(finite))
    rates, values = rates[:count], values[:count]
    at = int(np.argmax(values)) if count else 0
    has_peak = 0 < count and at < count - 1 and values[at] <= 1
    return Strength(
        rate=rate,
        value=float(value),
        gain=float(value) / rate,
        rates=rates,
        values=values,
        peak=float(values[at]) if has_peak else None,
        peak_rate=float(rates[at]) if has_peak else None,
        flat=bool(max(low, value, high) < FLAT * min(low, value, high)),
    )


def rate_of(
    rule: Rule, d: int, target: float, *, chunk: int = probe.TOKENS, lr_by_position: bool = False
) -> float:
    """The smallest rate at which s reaches a target; infinite where no rate of the grid does.

    Args:
        rule: the four parts; its own rate plays no role.
        d: width of a head.
        target: of s, > 0.
        chunk: as of `strength`.
        lr_by_position: as of `strength`.
    """
    measured = probe.measure(rule, d, chunk=chunk, lr_by_position=lr_by_position)
    rates = probe.grid()
    for _ in range(1 + REFINED):
        reached = np.nan_to_num(measured(rates), nan=-np.inf, posinf=np.inf) >= target
        if not reached.any():
            return math.inf if rates[0] == probe.grid()[0] else float(rates[-1])
        at = int(np.argmax(reached))
        if at == 0:
            return float(rates[0])
        rates = np.geomspace(rates[at - 1], rates[at], probe.ROWS)
    return float(rates[0])
