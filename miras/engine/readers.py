"""Readers: the ways in which a memory's weights are read.

A memory sees its weights through one of these only, so that one `apply` serves for the snapshot,
for gradients, and for the weights as they stand at each token of a chunk.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal, NamedTuple

import jax.numpy as jnp

from miras.array_typing import Array, Leaf, Weights
from miras.engine.decay import Decay, DecaySums, read_writes
from miras.memory import Memory, Reader
from miras.optim.coefficients import Coefficients

# How a weight enters a read: x @ W, x @ W^T, x * W or x + W.
ReadKind = Literal["linear", "transposed", "scale", "shift"]


class FactoredGradient(NamedTuple):
    """The factored gradients of one weight over K tokens: inputs X [K, in] and outputs' E [K, out].

    For a weight read as x @ W by token s, the gradient of the token's loss is the outer product of
    X_s (the input) and E_s (the loss's derivative by the output); it is never formed. What holds
    for `linear` holds for `scale` and `shift` with element-wise products. E may already be scaled
    per token (by eta_t).
    """

    X: Array
    E: Array

    @property
    def turned(self) -> "FactoredGradient":
        """The gradients of W^T."""
        return FactoredGradient(self.E, self.X)


# By weight name; a token may have several terms, each a `FactoredGradient`.
FactoredGradients = dict[str, tuple[FactoredGradient, ...]]


@dataclasses.dataclass
class FixedWeightsReader:
    """Reads one set of weights for all tokens, optionally decayed for each token.

    Attributes:
        weights: leaves [in, out] or [out].
        constants: weights that the memory declares as fixed.
        decays: by weight name: token t reads alpha_t * W.
        gates: that the memory declares, of the tokens that are read, [C, ...].
    """

    weights: Weights
    constants: Weights
    decays: Mapping[str, Decay] | None = None
    gates: Mapping[str, Array] = dataclasses.field(default_factory=dict)

    def linear(self, name: str, x: Array) -> Array:
        """x @ W."""
        if self.decays is None:
            return x @ self.weights[name]
        decay = self.decays[name]
        x = x if decay.row is None else x * jnp.exp(decay.row)
        return self._scaled(name, x @ self.weights[name])

    def transposed(self, name: str, x: Array) -> Array:
        """x @ W^T."""
        W = self.weights[name]
        if self.decays is None:
            return x @ W.T
        decay = self.decays[name]
        x = x if decay.column is None else x * jnp.exp(decay.column)
        return decay.turned.of_output(x @ W.T)

    def scale(self, name: str, x: Array) -> Array:
        """x * W."""
        return self._scaled(name, x * self.weights[name])

    def shift(self, name: str, x: Array) -> Array:
        """x + W."""
        return x + self._scaled(name, jnp.broadcast_to(self.weights[name], x.shape))

    def fixed(self, name: str) -> Array:
        """A fixed weight."""
        return self.constants[name]

    def gate(self, name: str) -> Array:
        """A gate of the memory."""
        return self.gates[name]

    def _scaled(self, name: str, y: Array) -> Array:
        return y if self.decays is None else self.decays[name].of_output(y)


def apply(memory: Memory, reader: Reader, q: Array) -> Array:
    """M(W, q_t) of each query [C, dk], or of each of N queries a token [C, N, dk]; as q, [.., dv].

    The N reads of a token see the same weights.
    """
    if q.ndim == 2:
        return memory.apply(reader, q)
    return jnp.stack([memory.apply(reader, q[:, n]) for n in range(q.shape[1])], axis=1)


class DualWeight(NamedTuple):
    """One weight over the tokens of a chunk, as a linear recursion leaves it.

        W_t = beta_t W_0 + p_t S_0 - sum_s c[t, s] X_s^T E_s

    Attributes:
        start: W_0.
        momentum: S_0; None without.
        writes: the tokens' factored gradients, by term.
        coefficients: c, beta and p.
        row: sums of log decays of rows; None without.
        column: the same of columns.
    """

    start: Leaf
    momentum: Leaf | None
    writes: tuple[FactoredGradient, ...]
    coefficients: Coefficients
    row: DecaySums | None
    column: DecaySums | None

    @property
    def turned(self) -> "DualWeight":
        """The dual weight of W^T."""
        return self._replace(
            start=self.start.T,
            momentum=None if self.momentum is None else self.momentum.T,
            writes=tuple(write.turned for write in self.writes),
            row=self.column,
            column=self.row,
        )


@dataclasses.dataclass
class DualForm:
    """Reads the weights as they stand at each token of a chunk, without forming them.

        beta_t (x_t @ W_0) + p_t (x_t @ S_0) - sum_s c[t, s] (x_t . X_s) E_s

    Attributes:
        duals: by weight name.
        constants: weights that the memory declares as fixed.
        gates: that the memory declares, of the tokens that are read, [C, ...].
    """

    duals: dict[str, DualWeight]
    constants: Weights
    gates: Mapping[str, Array] = dataclasses.field(default_factory=dict)

    def linear(self, name: str, x: Array) -> Array:
        """x_t @ W_t."""
        return read_dual_weight(self.duals[name], x)

    def transposed(self, name: str, x: Array) -> Array:
        """x_t @ W_t^T."""
        return read_dual_weight(self.duals[name].turned, x)

    def scale(self, name: str, x: Array) -> Array:
        """x_t * W_t."""
        return x * self._vector(name, [write.E * write.X for write in self.duals[name].writes])

    def shift(self, name: str, x: Array) -> Array:
        """x_t + W_t."""
        return x + self._vector(name, [write.E for write in self.duals[name].writes])

    def fixed(self, name: str) -> Array:
        """A fixed weight."""
        return self.constants[name]

    def gate(self, name: str) -> Array:
        """A gate of the memory."""
        return self.gates[name]

    def _vector(self, name: str, gradients: list[Array]) -> Array:
        """W_t of a weight [out], for all tokens: [C, out]."""
        dual = self.duals[name]
        y = dual.coefficients.beta[:, None] * dual.start[None, :]
        if dual.column is not None:
            y = y * jnp.exp(dual.column.since_start)
        if dual.momentum is not None:
            assert dual.coefficients.p is not None
            y = y + dual.coefficients.p[:, None] * dual.momentum[None, :]
        one = jnp.ones((dual.coefficients.c.shape[0], 1), dual.coefficients.c.dtype)
        for gradient in gradients:
            X = jnp.ones((gradient.shape[0], 1), gradient.dtype)
            y = y + read_writes(-dual.coefficients.c, one, X, gradient, None, dual.column)
        return y


def read_dual_weight(dual: DualWeight, x: Array) -> Array:
    """x_t @ W_t for x [C, in]: [C, out]."""
    decayed = x if dual.row is None else x * jnp.exp(dual.row.since_start)
    y = _weighted(dual.coefficients.beta, decayed, dual.start)
    if dual.column is not None:
        y = y * jnp.exp(dual.column.since_start)
    if dual.momentum is not None:
        assert dual.coefficients.p is not None
        y = y + _weighted(dual.coefficients.p, x, dual.momentum)
    for write in dual.writes:
        y = y + read_writes(-dual.coefficients.c, x, write.X, write.E, dual.row, dual.column)
    return y


def _weighted(weights: Array, x: Array, W: Array) -> Array:
    """weights_t (x_t @ W), weighted where it is narrower."""
    if x.shape[-1] < W.shape[-1]:
        return (weights[:, None] * x) @ W
    return weights[:, None] * (x @ W)


@dataclasses.dataclass
class PerToken:
    """Reads weights given for each token.

    Attributes:
        weights: leaves [C, in, out] or [C, out].
        constants: weights that the memory declares as fixed.
        gates: that the memory declares, of the tokens that are read, [C, ...].
    """

    weights: Weights
    constants: Weights
    gates: Mapping[str, Array] = dataclasses.field(default_factory=dict)

    def linear(self, name: str, x: Array) -> Array:
        """x_t @ W_t."""
        return jnp.einsum("ti,tio->to", x, self.weights[name])

    def transposed(self, name: str, x: Array) -> Array:
        """x_t @ W_t^T."""
        return jnp.einsum("to,tio->ti", x, self.weights[name])

    def scale(self, name: str, x: Array) -> Array:
        """x_t * W_t."""
        return x * self.weights[name]

    def shift(self, name: str, x: Array) -> Array:
        """x_t + W_t."""
        return x + self.weights[name]

    def fixed(self, name: str) -> Array:
        """A fixed weight."""
        return self.constants[name]

    def gate(self, name: str) -> Array:
        """A gate of the memory."""
        return self.gates[name]


@dataclasses.dataclass
class OwnSteps:
    """Reads through another reader, less the steps that the token itself has already taken.

    Attributes:
        base: the reader of the weights before the token.
        writes: the token's earlier terms, E scaled by eta.
    """

    base: Reader
    writes: FactoredGradients

    def linear(self, name: str, x: Array) -> Array:
        """x_t @ (W - sum_j X_j^T E_j)."""
        y = self.base.linear(name, x)
        for write in self.writes[name]:
            y = y - jnp.sum(x * write.X, axis=-1, keepdims=True) * write.E
        return y

    def transposed(self, name: str, x: Array) -> Array:
        """x_t @ (W - sum_j X_j^T E_j)^T."""
        y = self.base.transposed(name, x)
        for write in self.writes[name]:
            y = y - jnp.sum(x * write.E, axis=-1, keepdims=True) * write.X
        return y

    def scale(self, name: str, x: Array) -> Array:
        """x_t * (W - sum_j X_j E_j)."""
        steps = [write.X * write.E for write in self.writes[name]]
        return self.base.scale(name, x) - x * sum(steps)

    def shift(self, name: str, x: Array) -> Array:
        """x_t + (W - sum_j E_j)."""
        return self.base.shift(name, x) - sum(write.E for write in self.writes[name])

    def fixed(self, name: str) -> Array:
        """A fixed weight."""
        return self.base.fixed(name)

    def gate(self, name: str) -> Array:
        """A gate of the memory."""
        return self.base.gate(name)
