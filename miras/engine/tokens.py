"""Tokens: what a tile's tokens write and by how much, masks and gates worked in."""

from typing import NamedTuple

import jax.numpy as jnp

from miras.array_typing import Array, Weights
from miras.engine.buffers import rank
from miras.engine.gradients import Term
from miras.engine.readers import FixedWeightsReader
from miras.optim.coefficients import MIN_LOG
from miras.parts.association import Association, Buffers
from miras.parts.gate import Gate, Side
from miras.rule.rule import Rule


class Tokens(NamedTuple):
    """A run of C tokens, ready to be written.

    Attributes:
        terms: the associations of each token.
        for_gradients: the gates that gradients depend on, by name [C, ...]; preceded by the
            window's tokens after `with_window`, as the terms are.
        log_decays: by side: [C] for "head", [C, D] for channels; 0 where masked.
        for_steps: the algorithm's own gates by name, [C, ...]; logs are 0 where masked.
        weight: of the token in the windows it lies in [C], 0 where masked; None without windows.
        write: [C], 1 or 0.
        gates: the effective gates [C, ...].
    """

    terms: tuple[Term, ...]
    for_gradients: dict[str, Array]
    log_decays: dict[Side, Array]
    for_steps: dict[str, Array]
    weight: Array | None
    write: Array
    gates: dict[str, Array]


class Window(NamedTuple):
    """The last w - 1 written tokens: leaves [w - 1, ...], the latest last.

    Attributes:
        k: keys.
        v: values.
        weight: of each token; 0 where there is none.
        gates: those that a token's gradient depends on, by name; neutral where there is none.
    """

    k: Array
    v: Array
    weight: Array
    gates: dict[str, Array]


def tokens_of(
    rule: Rule,
    fixed: Weights,
    k: Array,
    v: Array,
    k_write: Array | None,
    gates: dict[str, Array],
    write: Array,
    buffers: Buffers,
) -> Tokens:
    """The tokens of a tile; arguments as its fields, and the buffers that parts carry."""
    gates = rule.retention.effective(_clamped(rule, gates))
    given = k.shape[1] if k.ndim == 3 else 1
    rates_by_term = k.ndim == 3 and _has_terms(rule, gates)
    made = Association(k, k_write, v)
    for mapping in rule.associating_parts:
        made = mapping.associate(made, gates, buffers)
    k, k_write, v, scale = made
    keys = _features(rule, fixed, k, gates) if rule.memory.is_linear else k
    gates = rule.algorithm.effective(gates, keys)
    several = k.ndim == 3
    count = k.shape[1] if several else rule.algorithm.terms
    at_gradient = rule.algorithm.lr_at == "gradient"
    at_term = at_gradient and rule.algorithm.window == 1  # else it scales a window: see `band`
    lrs = _rate(rule, gates)
    if rates_by_term and count > given:
        lrs = jnp.concatenate([lrs] * (count // given), axis=1)
    lrs = lrs if rates_by_term or not several else jnp.repeat(lrs[:, None], count, axis=1)
    side = rule.algorithm.granularity

    def part(x: Array, j: int) -> Array:
        return x[:, j] if several else x

    terms = []
    for j in range(count):
        rate, rate_in = write[:, None], None
        if scale is not None:
            rate = rate * part(scale, j)[:, None]
        if at_term:
            lr = part(lrs, j)
            if side == "key":
                rate_in = lr
            else:
                rate = rate * (lr[:, None] if side == "head" else lr)
        along = None if k_write is None else part(k_write, j)
        terms.append(Term(part(k, j), along, part(v, j), rate, rate_in))

    log_decays: dict[Side, Array] = {}
    for name, side_name in rule.retention.decays:
        gate = gates[name]
        masked = write if gate.ndim == 1 else write[:, None]
        log_decays[side_name] = jnp.where(masked > 0, jnp.maximum(gate, MIN_LOG), 0.0)
    weights = rule.gates_of("weight")
    return Tokens(
        terms=tuple(terms),
        for_gradients={gate.name: gates[gate.name] for gate in rule.gradient_gates},
        log_decays=log_decays,
        for_steps={gate.name: _masked(gate, gates, write) for gate in rule.algorithm.gates()},
        weight=write * gates[weights[0].name] if weights else None,
        write=write,
        gates=gates,
    )


def _rate(rule: Rule, gates: dict[str, Array]) -> Array:
    assert rule.rate is not None
    return gates[rule.rate.name]


def _has_terms(rule: Rule, gates: dict[str, Array]) -> bool:
    """Whether each association of a token has a rate of its own."""
    assert rule.rate is not None
    return gates[rule.rate.name].ndim == (2 if rule.rate.side == "head" else 3)


def _masked(gate: Gate, gates: dict[str, Array], write: Array) -> Array:
    """A gate of the algorithm, whose log is 0 where a token is masked."""
    x = gates[gate.name]
    if gate.range != "log_unit":
        return x
    return jnp.where((write > 0).reshape(-1, *[1] * (x.ndim - 1)), x, 0.0)


def _features(rule: Rule, fixed: Weights, k: Array, gates: dict[str, Array]) -> Array:
    """phi(k) of keys [C, dk] or [C, R, dk]."""
    own = rule.memory.own_gates(gates)
    if k.ndim == 3:
        own = {name: jnp.repeat(x, k.shape[1], axis=0) for name, x in own.items()}
    reader = FixedWeightsReader({}, fixed, gates=own)
    flat = rule.memory.features(reader, k.reshape(-1, k.shape[-1]))
    return flat.reshape(*k.shape[:-1], flat.shape[-1])


def _clamped(rule: Rule, gates: dict[str, Array]) -> dict[str, Array]:
    """Log decays per channel held above the retention's `min_log_decay`."""
    low = rule.retention.min_log_decay
    per_channel = {name for name, side in rule.retention.decays if side != "head"}
    return {n: jnp.maximum(g, low) if n in per_channel else g for n, g in gates.items()}


def band(rule: Rule, window: Window | None, tokens: Tokens) -> Array | None:
    """The weight of each gradient in each token's step, [C, w - 1 + C]; None for a window of 1."""
    if window is None:
        return None
    assert tokens.weight is not None
    weight = jnp.concatenate([window.weight, tokens.weight])
    ranks = rank(weight)
    size = tokens.write.shape[0]
    age = ranks[-size:, None] - ranks[None, :]
    inside = (age >= 0) & (age < rule.algorithm.window)
    past = jnp.arange(weight.shape[0])[None, :] <= (
        window.weight.shape[0] + jnp.arange(size)[:, None]
    )
    step = tokens.write
    if rule.algorithm.lr_at == "gradient":  # the step's own eta_t scales its whole window
        step = step * _rate(rule, tokens.gates)
    return jnp.where(inside & past, weight[None, :], 0.0) * step[:, None]


def with_window(window: Window, tokens: Tokens) -> Tokens:
    """The tokens with those of the window before them, for gradients."""
    (term,) = tokens.terms
    join = lambda a, b: jnp.concatenate([a, b])  # noqa: E731
    whole = Term(
        join(window.k, term.k),
        None,
        join(window.v, term.v),
        join(jnp.ones((window.k.shape[0], 1), term.rate.dtype), term.rate),
        None,
    )
    gates = {name: join(window.gates[name], gate) for name, gate in tokens.for_gradients.items()}
    return tokens._replace(terms=(whole,), for_gradients=gates)


def next_window(rule: Rule, tokens: Tokens, window: Window) -> Window:
    """The last w - 1 written tokens after a run."""
    whole = with_window(window, tokens)
    (term,) = whole.terms
    assert tokens.weight is not None
    weight = jnp.concatenate([window.weight, tokens.weight])
    ranks = rank(weight)
    size = window.weight.shape[0]
    wanted = ranks[-1] - size + 1 + jnp.arange(size)
    chosen = (ranks[None, :] == wanted[:, None]) & (weight > 0)[None, :]
    pick = chosen.astype(weight.dtype)
    some = jnp.any(chosen, axis=1)
    gates = {}
    for gate in rule.gradient_gates:
        held = pick @ whole.for_gradients[gate.name]
        there = some.reshape(-1, *[1] * (held.ndim - 1))
        gates[gate.name] = jnp.where(there, held, gate.neutral)
    return Window(pick @ term.k, pick @ term.v, pick @ weight, gates)
