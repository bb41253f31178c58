"""The contract of a memory."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from miras.array_typing import Array, Weights
from miras.engine.gradients import factored
from miras.engine.readers import FixedWeightsReader
from miras.errors import ConfigError
from miras.memory import Memory, Reader
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

_DK = 3
Gates = dict[str, Array]


def check_memory(
    memory: Memory, *, beside: Mapping[str, Any] | None = None, rules: int = 3
) -> None:
    """Hold a memory to its contract.

    Config and docstring; `init` gives finite float32 weights [in, out] or [out], the same for the
    same key; `apply` and `fits` read each weight once, through the reader, tokens do not see each
    other, and an answer and its gradients are finite; `sides` and `fixed` fit the weights; a linear
    memory is features @ w1; its factored gradients are those of `jax.grad`; steps along them lower
    a squared error; the formula, if any, can be written and has the part's gates; and the backends
    agree on rules with it.

    Args:
        memory: the config object.
        beside: parts that it needs; see `Rule`.
        rules: with how many rules backends are compared; 0 leaves this out, which is most of the
            time.

    Raises:
        AssertionError: saying what is broken.
    """
    check_config(memory, Memory)
    with jax.enable_x64(False), jax.disable_jit():
        dv, weights = _check_init(memory)
    with double_precision_op_by_op():
        if weights:  # the engine itself reads a memory that keeps tokens
            _check_sides(memory, weights, dv)
            rng = np.random.default_rng(0)
            W = {n: w.astype(jnp.float64) for n, w in weights.items()}
            W = {n: w + 0.3 * jnp.asarray(rng.normal(size=w.shape)) for n, w in W.items()}
            x = jnp.asarray(rng.normal(size=(4, _DK)))
            v = jnp.asarray(rng.normal(size=(4, dv)))
            gates = _gates_of(memory, x.shape[0], dv)
            _check_apply(memory, W, x, v, gates)
            _check_linear(memory, W, x, gates)
            _check_associations(memory, W, x, v, gates)
            _check_gradients(memory, W, x, v, gates)
            _check_learning(memory, W, x, v, gates)
    check_formula("memory", memory, beside)
    check_rules(beside, rules, memory=memory)


def _check_init(memory: Memory) -> tuple[int, Weights]:
    dv = _DK + 1
    try:
        weights = memory.init(jax.random.key(0), _DK, dv)
    except ConfigError:  # some need dk = dv, and say so
        dv = _DK
        weights = memory.init(jax.random.key(0), _DK, dv)
    for name, leaf in weights.items():
        expect(
            leaf.ndim in (1, 2) and leaf.dtype == jnp.float32,
            f"{name_of(memory)}.init: {name!r} is {leaf.shape} {leaf.dtype}: it must be [in, out] "
            "or [out], float32.",
        )
    expect_finite(weights, f"{name_of(memory)}.init")
    again = memory.init(jax.random.key(0), _DK, dv)
    expect_close(again, weights, f"{name_of(memory)}.init differs for the same key", 0.0)
    for name in memory.fixed:
        expect(
            name in weights, f"{name_of(memory)}.fixed names {name!r}, which init does not make."
        )
    written = set(weights) - set(memory.fixed)
    expect(written or not weights, f"{name_of(memory)}: all weights are fixed; it cannot learn.")
    return dv, weights


def _check_sides(memory: Memory, weights: Weights, dv: int) -> None:
    widths = {"key": _DK, "value": dv, "slot": memory.slots}
    for name, leaf in weights.items():
        if name in memory.fixed:
            continue
        sides = memory.sides(name)
        # A default of two Nones stands for any weight.
        expect(
            len(sides) == leaf.ndim or not any(sides),
            f"{name_of(memory)}.sides({name!r}) is {sides}, but the weight has shape {leaf.shape}.",
        )
        for side, size in zip(sides, leaf.shape):
            expect(
                side is None or widths.get(side) == size,
                f"{name_of(memory)}.sides({name!r}) is {sides}, but the weight has shape "
                f"{leaf.shape} with dk={_DK}, dv={dv}: {side!r} has {widths.get(side or '')}.",
            )


@dataclasses.dataclass
class _Counting:
    """Reads plain weights and counts how often each is read, as written and as fixed."""

    weights: Weights
    gates: dict[str, Array]
    written: list[str] = dataclasses.field(default_factory=list)
    held: list[str] = dataclasses.field(default_factory=list)

    def linear(self, name: str, x: Array) -> Array:
        self.written.append(name)
        expect(
            x.ndim == 2 and self.weights[name].ndim == 2,
            f"read.linear({name!r}, x) of x {x.shape} and a weight {self.weights[name].shape}: it "
            "is for [C, in] and [in, out].",
        )
        return x @ self.weights[name]

    def transposed(self, name: str, x: Array) -> Array:
        self.written.append(name)
        return x @ self.weights[name].T

    def scale(self, name: str, x: Array) -> Array:
        self.written.append(name)
        return x * self.weights[name]

    def shift(self, name: str, x: Array) -> Array:
        self.written.append(name)
        return x + self.weights[name]

    def fixed(self, name: str) -> Array:
        self.held.append(name)
        return self.weights[name]

    def gate(self, name: str) -> Array:
        expect(
            name in self.gates,
            f"read.gate({name!r}): the memory declares {sorted(self.gates)}.",
        )
        return self.gates[name]


def _check_apply(memory: Memory, W: Weights, x: Array, v: Array, gates: Gates) -> None:
    dv = v.shape[1]
    counting = _Counting(W, gates)
    y = memory.apply(counting, x)
    expect(
        y.shape == (x.shape[0], dv) and y.dtype == x.dtype,
        f"{name_of(memory)}.apply gives {y.shape} {y.dtype} of keys {x.shape} {x.dtype}: it must "
        f"be {(x.shape[0], dv)} in the same dtype.",
    )
    wanted = sorted(set(W) - set(memory.fixed))
    expect(
        sorted(counting.written) == wanted,
        f"{name_of(memory)}.apply reads {sorted(counting.written)} by linear, scale and shift: "
        f"each of {wanted} must be read so, once.",
    )
    expect(
        set(counting.held) == set(memory.fixed),
        f"{name_of(memory)}.apply reads {sorted(set(counting.held))} by read.fixed, but `fixed` "
        f"names {sorted(memory.fixed)}.",
    )
    fitted = _Counting(W, gates)
    fits = memory.fits(fitted, x, v)
    expect(
        sorted(fitted.written) == wanted or memory.associates,
        f"{name_of(memory)}.fits reads {sorted(fitted.written)}: each of {wanted} must be read, "
        "once.",
    )
    for pred, target in fits:
        expect(
            pred.shape == target.shape and pred.dtype == x.dtype,
            f"{name_of(memory)}.fits gives {pred.shape} {pred.dtype} against {target.shape}: both "
            "must have the same shape and the dtype of keys.",
        )
    first = {name: gate[:1] for name, gate in gates.items()}
    alone = memory.apply(_plain(memory, W, first), x[:1])
    expect_close(alone, y[:1], f"{name_of(memory)}: a token's answer depends on other tokens")
    expect_finite(memory.apply(_plain(memory, W, gates), 0 * x), f"{name_of(memory)} at a key of 0")


def _plain(memory: Memory, W: Weights, gates: Gates) -> Reader:
    held = {n: W[n] for n in memory.fixed}
    return FixedWeightsReader({n: w for n, w in W.items() if n not in held}, held, gates=gates)


def _gates_of(memory: Memory, tokens: int, dv: int) -> dict[str, Array]:
    """The memory's gates, each at another value for each token."""
    widths = {"head": (), "key": (_DK,), "value": (dv,), "slot": (memory.slots or 0,)}
    found = {}
    for gate in memory.gates():
        low, high = span(gate)
        values = jnp.linspace(low, high, tokens).reshape(-1, *[1] * len(widths[gate.side]))
        found[gate.name] = jnp.broadcast_to(values, (tokens, *widths[gate.side]))
    return found


def _check_linear(memory: Memory, W: Weights, x: Array, gates: Gates) -> None:
    if not memory.is_linear:
        return
    reader = _plain(memory, W, gates)
    written = set(W) - set(memory.fixed)
    expect(written == {"w1"}, f"{name_of(memory)} is linear, so it writes 'w1' only: {written}.")
    line = memory.features(reader, x) @ W["w1"]
    what = f"{name_of(memory)} is not features(x) @ w1, as `is_linear` says"
    expect_close(memory.apply(reader, x), line, what)


def _check_associations(memory: Memory, W: Weights, x: Array, v: Array, gates: Gates) -> None:
    if not memory.associates:
        return
    width = {"head": (), "key": x.shape[1:], "value": v.shape[1:], "slot": (memory.slots or 0,)}
    decays = {side: jnp.full((x.shape[0], *shape), -0.5) for side, shape in width.items()}
    pairs = memory.associations(x, v, gates, decays)  # pyright: ignore[reportArgumentType]
    written = set(W) - set(memory.fixed)
    expect(set(pairs) == written, f"{name_of(memory)}.associations writes {set(pairs)}: {written}.")
    for name, (key, value) in pairs.items():
        shape = (key.shape[-1], value.shape[-1])
        expect(
            shape == W[name].shape,
            f"{name_of(memory)}.associations gives a key and a value for {name!r} of {shape}, but "
            f"the weight has shape {W[name].shape}.",
        )


def _check_gradients(memory: Memory, W: Weights, x: Array, v: Array, gates: Gates) -> None:
    """sum_s X_s^T E_s is the gradient of the sum of squared errors, and differentiates further."""
    held = {n: W[n] for n in memory.fixed}

    def from_factors(W: Weights) -> Weights:
        reader = _plain(memory, {**W, **held}, gates)
        writes, kinds, _ = factored(memory, reader, x, v, lambda fit: fit.pred - fit.target)
        whole = {
            "linear": lambda X, E: X.T @ E,
            "transposed": lambda X, E: X.T @ E,
            "scale": lambda X, E: jnp.sum(X * E, axis=0),
            "shift": lambda X, E: jnp.sum(E, axis=0),
        }
        return {n: whole[kinds[n]](write.X, write.E) for n, write in writes.items()}

    fast = {n: w for n, w in W.items() if n not in held}
    plain = jax.grad(lambda W: _error(memory, {**W, **held}, x, v, gates))(fast)
    what = f"{name_of(memory)}: the factored gradient is not jax.grad's"
    expect_close(from_factors(fast), plain, what)
    outer = jax.grad(lambda W: sum(jnp.sum(jnp.sin(g)) for g in from_factors(W).values()))(fast)
    expect_finite(outer, f"{name_of(memory)}: the gradient of its gradient")


def _error(memory: Memory, W: Weights, x: Array, v: Array, gates: Gates) -> Array:
    fits = memory.fits(_plain(memory, W, gates), x, v)
    return jnp.asarray(0.5 * sum(jnp.sum((pred - target) ** 2) for pred, target in fits))


def _check_learning(memory: Memory, W: Weights, x: Array, v: Array, gates: Gates) -> None:
    held = {n: W[n] for n in memory.fixed}
    fast = {n: w for n, w in W.items() if n not in held}
    errors = []
    for _ in range(4):
        error, g = jax.value_and_grad(lambda W: _error(memory, {**W, **held}, x, v, gates))(fast)
        errors.append(float(error))
        square = sum(jnp.sum(leaf * leaf) for leaf in g.values())
        rate = 0.01 * error / jnp.maximum(square, 1e-12)  # one part in a hundred, to first order
        fast = {n: w - rate * g[n] for n, w in fast.items()}
    expect(errors[-1] < errors[0], f"{name_of(memory)}: gradient steps raise its error: {errors}.")
