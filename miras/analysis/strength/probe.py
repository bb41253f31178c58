r"""The probe that measures write strength: 64 random pairs a head, written at many rates at once.

W0 = rule.init(key, d, d, H); unit keys k_i and values v_i ~ N(0, I); every gate at its start (one
that is `drawn` at that plus N(0, I) for each token), every eta_t = eta; written as one chunk
(refine 0, exact off) and read from the state after it:

    s(eta) = sum_{i,h} <M_eta(k_i) - M_0(k_i), v_i> / sum_{i,h} |v_i|^2

M_0 is the memory under the same decay without a write. The rates are the rows of a batch, so that
one compiled scan measures them all.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from miras.array_typing import Array, Weights
from miras.backends.base import ScanInputs
from miras.config import require
from miras.engine.averaging import by_position
from miras.engine.state import State
from miras.errors import ConfigError
from miras.rule.options import ScanOptions
from miras.rule.rule import Rule
from miras.sequence.read import answer
from miras.sequence.scan import every_gate, scan_with_loss

TOKENS = 64
HEADS = 4  # 256 pairs
LOWEST, HIGHEST, STEPS = -8, 4, 4  # powers of ten, and rates in each
ROWS = (HIGHEST - LOWEST) * STEPS + 4  # rates measured at once: a curve and three others

Measure = Callable[[np.ndarray], np.ndarray]


def grid() -> np.ndarray:
    """The rates of a curve, [ROWS - 3]."""
    return np.logspace(LOWEST, HIGHEST, ROWS - 3)


def measure(rule: Rule, d: int, *, chunk: int = TOKENS, lr_by_position: bool = False) -> Measure:
    """A function from at most ROWS rates to s at each, float64; compiled once.

    Args:
        rule: the four parts; its own rate plays no role.
        d: width of keys and values of a head.
        chunk: of the layer, from which factors by position begin anew: those of `lr_by_position`,
            and the averages of an algorithm that averages its steps.
        lr_by_position: whether the layer divides rates by the position in its chunk.

    Raises:
        ConfigError: the rule has no rate, or its memory does not allow dk = dv = d.
    """
    require(
        rule.rate is not None and not rule.memory.keeps_tokens,
        f"a rule with algorithm {rule.algorithm.kind!r} and memory {rule.memory.kind!r} has no "
        "rate, so that it has no write strength: give a rule whose memory is written by steps.",
    )
    depends = lr_by_position or rule.algorithm.averaged
    return _measure(_without_rate(rule), d, min(chunk, TOKENS) if depends else 0, lr_by_position)


def _without_rate(rule: Rule) -> Rule:
    """The rule with the rate of its algorithm's kind, so that rules share a compiled probe."""
    algorithm = rule.algorithm
    rates = ("lr", "max_lr")
    start = {f.name: f.default for f in dataclasses.fields(algorithm) if f.name in rates}
    try:
        algorithm = dataclasses.replace(algorithm, **start)
    except ConfigError:
        return rule
    return dataclasses.replace(rule, algorithm=algorithm)


@functools.lru_cache(maxsize=256)
def _measure(rule: Rule, d: int, chunk: int, lr_by_position: bool) -> Measure:
    of_weights, of_keys, of_values = jax.random.split(jax.random.key(0), 3)
    W0 = rule.init(of_weights, d, d, HEADS)
    k = jax.random.normal(of_keys, (TOKENS, HEADS, d))
    k = k / jnp.linalg.norm(k, axis=-1, keepdims=True)
    v = jax.random.normal(of_values, (TOKENS, HEADS, d))
    compiled = jax.jit(functools.partial(_strengths, rule, chunk, lr_by_position))

    def measured(rates: np.ndarray) -> np.ndarray:
        filled = np.resize(np.asarray(rates, np.float32), ROWS)  # one shape, one program
        return np.asarray(compiled(W0, k, v, filled), np.float64)[: len(rates)]

    return measured


def _strengths(
    rule: Rule,
    chunk: int,
    lr_by_position: bool,
    W0: Weights,
    k: Array,
    v: Array,
    rates: Array,
) -> Array:
    """s at each rate [ROWS], for pairs k, v [TOKENS, HEADS, d]."""
    rates = jnp.concatenate([jnp.zeros(1), rates])  # row 0 only decays
    k_rows, v_rows = (jnp.broadcast_to(x, (len(rates), *x.shape)) for x in (k, v))
    factors = by_position(chunk, k.dtype)[jnp.arange(TOKENS) % chunk] if chunk else None
    inputs = ScanInputs(W0, k_rows, k_rows, v_rows)
    assert rule.rate is not None
    gates = every_gate(rule, inputs)
    for i, gate in enumerate(gate for gate in rule.gates if gate.drawn):
        start = gates[gate.name]
        draw = jax.random.normal(jax.random.fold_in(jax.random.key(1), i), start.shape[1:])
        gates[gate.name] = start + draw  # the same in all rows
    start = gates[rule.rate.name]
    steps = rates.reshape(-1, *[1] * (start.ndim - 1))
    if lr_by_position:
        assert factors is not None
        steps = steps * factors.reshape(1, -1, *[1] * (start.ndim - 2))
    gates[rule.rate.name] = jnp.broadcast_to(steps, start.shape)
    average = factors if rule.algorithm.averaged else None
    options = ScanOptions(chunk=TOKENS, backend="xla")
    state = scan_with_loss(rule, inputs._replace(gates=gates, average=average), options).state
    assert isinstance(state, State)
    y = answer(rule, W0, k_rows, state.A, {})
    return jnp.sum((y[1:] - y[:1]) * v, axis=(1, 2, 3)) / jnp.sum(v * v)
