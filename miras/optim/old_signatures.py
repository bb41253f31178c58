"""Algorithms written for version 0.1, whose methods received momentum and rate."""

import jax.numpy as jnp

from miras.parts.old_signatures import adapt


def adapt_to_gates(cls: type) -> None:
    """Let an algorithm define its methods with the parameters of version 0.1."""
    adapt(cls, "step", "S, V, G, momentum, rate", "S, V, G, gates", _step)
    adapt(cls, "transform", "S, V, rate", "S, V, gates", _transform)
    old, new = "log_decay, log_momentum, rate, write, band", "log_decay, gates, write, band"
    adapt(cls, "coefficients", old, new, _coefficients)


def _step(algorithm, S, V, G, gates) -> tuple:
    mu = gates.get("log_momentum")
    return S, V, G, None if mu is None else jnp.exp(mu), algorithm.step_rate(gates)


def _transform(algorithm, S, V, gates) -> tuple:
    return S, V, algorithm.step_rate(gates)


def _coefficients(algorithm, log_decay, gates, write, band) -> tuple:
    rate = None if algorithm.lr_at == "gradient" else algorithm.step_rate(gates)
    return log_decay, gates.get("log_momentum"), rate, write, band
