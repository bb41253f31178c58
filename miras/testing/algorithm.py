"""The contract of a memory algorithm."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from miras.array_typing import Array, Leaf
from miras.optim import Algorithm
from miras.testing.config import check_config
from miras.testing.expect import (
    double_precision_op_by_op,
    expect,
    expect_close,
    expect_finite,
    name_of,
)
from miras.testing.formula import check_formula
from miras.testing.rules import check_rules

_C = 5


def check_algorithm(
    algorithm: Algorithm, *, beside: Mapping[str, Any] | None = None, rules: int = 3
) -> None:
    """Hold a memory algorithm to its contract.

    Config and docstring; `step` gives a finite step and exactly the buffers that it keeps; the
    chunk form, `coefficients`, is the recursion, `step`, under random gates, masked tokens and
    windows; its own steps lower a squared error; the formula, if any, can be written and has
    the part's gates; and the backends agree on rules with it.

    Args:
        algorithm: the config object.
        beside: parts that it needs; see `Rule`.
        rules: with how many rules backends are compared; 0 leaves this out, which is most of the
            time.

    Raises:
        AssertionError: saying what is broken.
    """
    check_config(algorithm, Algorithm)
    expect(
        set(algorithm.keeps) <= {"S", "V"},
        f"{name_of(algorithm)}.keeps is {algorithm.keeps}: buffers are 'S' and 'V'.",
    )
    expect(algorithm.window >= 1, f"{name_of(algorithm)}.window must be at least 1.")
    gates = {gate.name for gate in algorithm.gates()}
    with double_precision_op_by_op():
        if "lr" in gates:  # without steps there are none to check
            has_momentum = "log_momentum" in gates
            _check_step(algorithm, has_momentum)
            if algorithm.linear or algorithm.acts == "chunk":
                for seed in range(2):
                    _check_coefficients(algorithm, has_momentum, np.random.default_rng(seed))
            _check_learning(algorithm, has_momentum)
    check_formula("algorithm", algorithm, beside)
    check_rules(beside, rules, algorithm=algorithm)


def _buffers(algorithm: Algorithm, like: Leaf) -> tuple[Leaf | None, Leaf | None]:
    S, V = (jnp.zeros_like(like) if name in algorithm.keeps else None for name in "SV")
    return S, V


def _step(algorithm: Algorithm, S, V, G: Leaf, mu, rate) -> tuple[Any, Any, Leaf]:
    """A step of either kind: of those that act per chunk, with chunks of one token."""
    if algorithm.acts == "token":
        return algorithm.step(S, V, G, mu, rate)
    S = G if mu is None else mu * S + G
    U, V = algorithm.transform(S, V, rate)
    return S, V, U


def _check_step(algorithm: Algorithm, has_momentum: bool) -> None:
    mu = jnp.asarray(0.9) if has_momentum else None
    rng = np.random.default_rng(0)
    for G in (jnp.asarray(rng.normal(size=(3, 2))), jnp.zeros((3, 2)), jnp.ones(4)):
        S, V = _buffers(algorithm, G)
        new = dict(zip("SVU", _step(algorithm, S, V, G, mu, jnp.asarray(0.1))))
        for name in "SVU":
            kept = name == "U" or name in algorithm.keeps
            leaf = new[name]
            if algorithm.acts == "token" or name == "U":
                expect(
                    (leaf is not None) == kept,
                    f"{name_of(algorithm)}.step gives {name}={leaf}, but keeps {algorithm.keeps}.",
                )
            if leaf is not None:
                what = f"{name_of(algorithm)}.step: {name}"
                expect(leaf.shape == G.shape, f"{what} has shape {leaf.shape}, not {G.shape}.")
                expect_finite(leaf, f"{what} of a gradient {G}")


def _check_coefficients(algorithm: Algorithm, has_momentum: bool, rng: np.random.Generator) -> None:
    """A chunk of C tokens by the chunk form, and token by token."""
    window = algorithm.window
    size = window - 1 + _C
    write = jnp.asarray([1.0, 1.0, 0.0, 1.0, 1.0])
    log_decay, log_momentum = jnp.asarray(rng.uniform(-1, 0, (2, _C))) * write
    rate = jnp.asarray(rng.uniform(0.1, 1, _C))
    at_update = algorithm.lr_at == "update"
    g = jnp.asarray(rng.normal(size=(size, 3)))
    band = None
    if window > 1:
        weight = rng.uniform(0.3, 1, (_C, size))
        age = np.arange(_C)[:, None] + window - 1 - np.arange(size)[None, :]
        band = jnp.asarray(np.where((age >= 0) & (age < window), weight, 0)) * write[:, None]
    E = g if at_update or window > 1 else (rate * write)[:, None] * g
    A, S = jnp.asarray(rng.normal(size=(2, 3)))
    kept = has_momentum or algorithm.acts == "chunk"
    found = algorithm.coefficients(
        log_decay,
        log_momentum if has_momentum else None,
        rate if at_update else None,
        write,
        band,
    )
    weights = jnp.diag(write) if band is None and at_update else band
    G = E if weights is None else weights @ E
    want_A, want_S = _recursion(
        algorithm, A, S, G, log_decay, log_momentum if has_momentum else None,
        rate if at_update else jnp.ones(_C), write,
    )  # fmt: skip
    first = S if kept else None
    what = f"{name_of(algorithm)}: `coefficients` is not the recursion of `step`, in"
    by_chunk = _combine(found.c, found.beta, A, found.p, first, E)
    expect_close(by_chunk, want_A, f"{what} A")
    if kept and "S" in algorithm.keeps:
        by_chunk = _combine(found.n, found.m, S, None, None, E * _masked(algorithm, write, band))
        expect_close(by_chunk, want_S, f"{what} S")


def _masked(algorithm: Algorithm, write: Array, band: Array | None) -> Array:
    """Engines hand masked tokens over with a gradient of 0 where no band leaves them out."""
    del algorithm
    return jnp.ones(()) if band is not None else write[:, None]


def _combine(c: Array | None, beta: Array | None, start: Leaf, p, S, E: Leaf) -> Leaf:
    """Beta A_0 + p S_0 - c E."""
    assert c is not None
    assert beta is not None
    total = beta[:, None] * start - c @ E
    return total if p is None or S is None else total + p[:, None] * S


def _recursion(algorithm, A, S, G, log_decay, log_momentum, rate, write) -> tuple[Leaf, Leaf]:
    states = []
    V = None
    for t in range(_C):
        mu = None if log_momentum is None else jnp.exp(log_momentum[t])
        if write[t]:
            if algorithm.acts == "chunk":
                new, U = (S if mu is None else mu * S) + G[t], jnp.zeros_like(A)
            else:
                kept = S if "S" in algorithm.keeps else None
                new, V, U = algorithm.step(kept, V, G[t], mu, rate[t])
            A = jnp.exp(log_decay[t]) * A + U
            S = S if new is None else new
        states.append((A, S))
    As, Ss = zip(*states)
    return jnp.stack(As), jnp.stack(Ss)


def _check_learning(algorithm: Algorithm, has_momentum: bool) -> None:
    """Forty steps at a small rate towards a fixed target lower the squared error."""
    rng = np.random.default_rng(1)
    W, target = jnp.asarray(rng.normal(size=(2, 3, 3)))
    S, V = _buffers(algorithm, W)
    mu = jnp.asarray(0.5) if has_momentum else None
    eta = 0.02
    at_update = algorithm.lr_at == "update"
    start = jnp.sum((W - target) ** 2)
    for _ in range(40):
        G = W - target if at_update else eta * (W - target)
        S, V, U = _step(algorithm, S, V, G, mu, jnp.asarray(eta if at_update else 1.0))
        W = W + (U if at_update or algorithm.acts == "token" else eta * U)
    end = jnp.sum((W - target) ** 2)
    expect(end < start, f"{name_of(algorithm)}: steps raise a squared error: {start:g} to {end:g}.")
