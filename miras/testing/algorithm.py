"""The contract of a memory algorithm."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from miras.array_typing import Array, Leaf
from miras.optim import Algorithm
from miras.parts.gate import Gate
from miras.testing.config import check_config
from miras.testing.expect import (
    double_precision_op_by_op,
    expect,
    expect_close,
    expect_finite,
    name_of,
)
from miras.testing.formula import check_formula
from miras.testing.inputs import span
from miras.testing.rules import check_rules

_C = 5
Gates = dict[str, Array]


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
    with double_precision_op_by_op():
        if algorithm.parametric:  # without steps there are none to check
            _check_step(algorithm)
            if algorithm.linear or algorithm.acts == "chunk":
                for seed in range(2):
                    _check_coefficients(algorithm, np.random.default_rng(seed))
            _check_learning(algorithm)
    check_formula("algorithm", algorithm, beside)
    check_rules(beside, rules, algorithm=algorithm)


def _buffers(algorithm: Algorithm, like: Leaf) -> tuple[Leaf | None, Leaf | None]:
    S, V = (jnp.zeros_like(like) if name in algorithm.keeps else None for name in "SV")
    return S, V


def _step(algorithm: Algorithm, S, V, G: Leaf, gates: Gates) -> tuple[Any, Any, Leaf]:
    """A step of either kind: of those that act per chunk, with chunks of one token."""
    if algorithm.acts == "token":
        return algorithm.step(S, V, G, gates)
    S = G if algorithm.restarts else algorithm.accumulate(S, G, gates)
    U, V = algorithm.transform(S, V, gates)
    return S, V, U


def _one_token(algorithm: Algorithm, rate: float, momentum: float) -> Gates:
    """The gates of one token: the rate and momentum given, others where they start."""
    held = {"rate": rate, "momentum": float(np.log(momentum))}
    return {
        gate.name: jnp.asarray(held.get(gate.role or "", gate.constant(1)[0]))
        for gate in algorithm.gates()
    }


def _check_step(algorithm: Algorithm) -> None:
    gates = _one_token(algorithm, 0.1, 0.9)
    rng = np.random.default_rng(0)
    for G in (jnp.asarray(rng.normal(size=(3, 2))), jnp.zeros((3, 2)), jnp.ones(4)):
        S, V = _buffers(algorithm, G)
        new = dict(zip("SVU", _step(algorithm, S, V, G, gates)))
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


def _check_coefficients(algorithm: Algorithm, rng: np.random.Generator) -> None:
    """A chunk of C tokens by the chunk form, and token by token."""
    window = algorithm.window
    size = window - 1 + _C
    write = jnp.asarray([1.0, 1.0, 0.0, 1.0, 1.0])
    log_decay = jnp.asarray(rng.uniform(-1, 0, _C)) * write
    gates = {gate.name: _drawn(gate, write, rng) for gate in algorithm.gates()}
    rate = jnp.asarray(rng.uniform(0.1, 1, _C))
    gates |= {gate.name: rate for gate in algorithm.gates() if gate.role == "rate"}
    at_update = algorithm.lr_at == "update"
    g = jnp.asarray(rng.normal(size=(size, 3)))
    band = None
    if window > 1:
        weight = rng.uniform(0.3, 1, (_C, size))
        age = np.arange(_C)[:, None] + window - 1 - np.arange(size)[None, :]
        band = jnp.asarray(np.where((age >= 0) & (age < window), weight, 0)) * write[:, None]
    E = g if at_update or window > 1 else (rate * write)[:, None] * g
    A, S = jnp.asarray(rng.normal(size=(2, 3)))
    kept = "S" in algorithm.keeps
    found = algorithm.coefficients(log_decay, gates, write, band)
    weights = jnp.diag(write) if band is None and at_update else band
    G = E if weights is None else weights @ E
    want_A, want_S = _recursion(algorithm, A, S, G, log_decay, gates, write)
    first = S if kept else None
    what = f"{name_of(algorithm)}: `coefficients` is not the recursion of `step`, in"
    by_chunk = _combine(found.c, found.beta, A, found.p, first, E)
    expect_close(by_chunk, want_A, f"{what} A")
    if kept:
        by_chunk = _combine(found.n, found.m, S, None, None, E * _masked(algorithm, write, band))
        expect_close(by_chunk, want_S, f"{what} S")


def _masked(algorithm: Algorithm, write: Array, band: Array | None) -> Array:
    """Engines hand masked tokens over with a gradient of 0 where no band leaves them out."""
    del algorithm
    return jnp.ones(()) if band is not None else write[:, None]


def _combine(c: Array | None, beta: Array | None, start: Leaf, p, S, E: Leaf) -> Leaf:
    """beta A_0 + p S_0 - c E."""
    assert c is not None
    assert beta is not None
    total = beta[:, None] * start - c @ E
    return total if p is None or S is None else total + p[:, None] * S


def _drawn(gate: Gate, write: Array, rng: np.random.Generator) -> Array:
    """A random gate of C tokens, whose log is 0 where they are masked."""
    low, high = (-1.0, 0.0) if gate.role == "momentum" else span(gate)
    x = jnp.asarray(rng.uniform(low, high, _C))
    return x * write if gate.range == "log_unit" else x


def _recursion(algorithm, A, S, G, log_decay, gates, write) -> tuple[Leaf, Leaf]:
    states = []
    V = None
    for t in range(_C):
        own = {name: gate[t] for name, gate in gates.items()}
        if write[t]:
            if algorithm.acts == "chunk":
                new, U = algorithm.accumulate(S, G[t], own), jnp.zeros_like(A)
            else:
                kept = S if "S" in algorithm.keeps else None
                new, V, U = algorithm.step(kept, V, G[t], own)
            A = jnp.exp(log_decay[t]) * A + U
            S = S if new is None else new
        states.append((A, S))
    As, Ss = zip(*states)
    return jnp.stack(As), jnp.stack(Ss)


def _check_learning(algorithm: Algorithm) -> None:
    """Forty steps at a small rate towards a fixed target lower the squared error."""
    rng = np.random.default_rng(1)
    W, target = jnp.asarray(rng.normal(size=(2, 3, 3)))
    S, V = _buffers(algorithm, W)
    eta = 0.02
    at_update = algorithm.lr_at == "update"
    gates = _one_token(algorithm, eta, 0.5)
    start = jnp.sum((W - target) ** 2)
    for _ in range(40):
        G = W - target if at_update else eta * (W - target)
        S, V, U = _step(algorithm, S, V, G, gates)
        W = W + (U if at_update or algorithm.acts == "token" else eta * U)
    end = jnp.sum((W - target) ** 2)
    expect(end < start, f"{name_of(algorithm)}: steps raise a squared error: {start:g} to {end:g}.")
