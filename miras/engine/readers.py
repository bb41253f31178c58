"""Readers: the ways in which a memory's weights are read and their gradients factored.

For a weight W [in, out] read as x_s @ W by token s, the gradient of the token's loss is the outer
product of X_s (the input) and D_s (the loss's derivative by the output); it is never formed. What
holds for `linear` holds for `scale` and `shift` with element-wise products.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from miras.memory import Memory, Reader
from miras.optim.coefficients import Coefficients
from miras.typing import Array, Leaf, Weights

Kind = Literal["linear", "scale", "shift"]


class Write(NamedTuple):
    """The factored gradients of one weight over C tokens: inputs X [C, in] and outputs' E [C, out].

    E may already be scaled per token (by eta_t).
    """

    X: Array
    E: Array


Writes = dict[str, Write]


def weighted_sum(weights: Array, write: Write, kind: Kind) -> Leaf:
    """sum_s weights[s] grad_s, with weights [C]: one weight's shape."""
    weighted = weights[:, None] * write.E
    if kind == "linear":
        return jax.lax.dot_general(write.X, weighted, (((0,), (0,)), ((), ())))
    return jnp.sum(weighted * write.X if kind == "scale" else weighted, axis=0)


@dataclasses.dataclass
class Plain:
    """Reads one set of weights for all tokens, optionally times a factor per token.

    Attributes:
        weights: leaves [in, out] or [out].
        constants: weights that the memory declares as fixed.
        factor: [C, 1]: token t reads factor_t * W.
    """

    weights: Weights
    constants: Weights
    factor: Array | None = None

    def linear(self, name: str, x: Array) -> Array:
        """X @ W."""
        return self._scaled(x @ self.weights[name])

    def scale(self, name: str, x: Array) -> Array:
        """X * W."""
        return self._scaled(x * self.weights[name])

    def shift(self, name: str, x: Array) -> Array:
        """X + W."""
        return x + self._scaled(jnp.broadcast_to(self.weights[name], x.shape))

    def fixed(self, name: str) -> Array:
        """A fixed weight."""
        return self.constants[name]

    def _scaled(self, y: Array) -> Array:
        return y if self.factor is None else self.factor * y


@dataclasses.dataclass
class Tapped:
    """Reads through another reader, records each input and adds a tap to each output.

    The derivative of a loss by a tap, at tap 0, is the D of the factored gradient.

    Attributes:
        base: the reader that reads.
        taps: zeros [C, out] by weight name; None records only.
        inputs: filled on the way: X by weight name.
        kinds: filled on the way: how each weight was read.
    """

    base: Reader
    taps: Weights | None
    inputs: dict[str, Array] = dataclasses.field(default_factory=dict)
    kinds: dict[str, Kind] = dataclasses.field(default_factory=dict)
    outputs: dict[str, Array] = dataclasses.field(default_factory=dict)

    def linear(self, name: str, x: Array) -> Array:
        """X @ W + tap."""
        return self._tap("linear", name, x, self.base.linear(name, x))

    def scale(self, name: str, x: Array) -> Array:
        """X * W + tap."""
        return self._tap("scale", name, x, self.base.scale(name, x))

    def shift(self, name: str, x: Array) -> Array:
        """X + W + tap."""
        return self._tap("shift", name, x, self.base.shift(name, x))

    def fixed(self, name: str) -> Array:
        """A fixed weight."""
        return self.base.fixed(name)

    def _tap(self, kind: Kind, name: str, x: Array, y: Array) -> Array:
        assert name not in self.inputs, f"memory weight {name!r} is read twice in one apply"
        self.inputs[name], self.kinds[name], self.outputs[name] = x, kind, y
        return y if self.taps is None else y + self.taps[name]


@dataclasses.dataclass
class DualForm:
    """Reads the weights as they stand after each token of a chunk, without forming them.

        beta_t (x_t @ W_0) + p_t (x_t @ S_0) - sum_{s<=t} c[t, s] (x_t . X_s) E_s

    Attributes:
        W: weights at the start of the chunk.
        S: momentum at the start; None without momentum.
        writes: the chunk's factored gradients, E scaled by eta.
        coefficients: c, beta and p.
        constants: weights that the memory declares as fixed.
    """

    W: Weights
    S: Weights | None
    writes: Writes
    coefficients: Coefficients
    constants: Weights

    def linear(self, name: str, x: Array) -> Array:
        """x_t @ W_t."""
        write = self.writes[name]
        scores = self.coefficients.c * (x @ write.X.T)
        return self._start(name, lambda W: x @ W) - scores @ write.E

    def scale(self, name: str, x: Array) -> Array:
        """x_t * W_t."""
        write = self.writes[name]
        return x * (self._start(name, _rows) - self.coefficients.c @ (write.E * write.X))

    def shift(self, name: str, x: Array) -> Array:
        """x_t + W_t."""
        return x + self._start(name, _rows) - self.coefficients.c @ self.writes[name].E

    def fixed(self, name: str) -> Array:
        """A fixed weight."""
        return self.constants[name]

    def _start(self, name: str, read: Callable[[Leaf], Array]) -> Array:
        y = self.coefficients.beta[:, None] * read(self.W[name])
        if self.S is not None:
            assert self.coefficients.p is not None
            y = y + self.coefficients.p[:, None] * read(self.S[name])
        return y


def _rows(vector: Leaf) -> Array:
    return vector[None, :]


@dataclasses.dataclass
class PerToken:
    """Reads weights given for each token: leaves [C, in, out] or [C, out]."""

    weights: Weights
    constants: Weights

    def linear(self, name: str, x: Array) -> Array:
        """x_t @ W_t."""
        return jnp.einsum("ti,tio->to", x, self.weights[name])

    def scale(self, name: str, x: Array) -> Array:
        """x_t * W_t."""
        return x * self.weights[name]

    def shift(self, name: str, x: Array) -> Array:
        """x_t + W_t."""
        return x + self.weights[name]

    def fixed(self, name: str) -> Array:
        """A fixed weight."""
        return self.constants[name]


def factored_gradients(
    memory: Memory, reader: Reader, k: Array, residual: Callable[[Array], Array]
) -> tuple[Writes, dict[str, Kind], Array]:
    """The gradients of all weights for all tokens, in factored form.

    Args:
        memory: the structure M.
        reader: the weights at which gradients are taken.
        k: keys [C, dk].
        residual: d loss / d pred as a function of pred [C, dv].

    Returns:
        X and D by weight name, how each weight is read, and pred [C, dv].
    """

    def forward(taps: Weights | None):
        tapped = Tapped(reader, taps)
        pred = memory.apply(tapped, k)
        return pred, tapped

    recorded = Tapped(reader, None)
    shapes = jax.eval_shape(lambda: _outputs(memory, recorded, k))
    taps = {name: jnp.zeros(s.shape, s.dtype) for name, s in shapes.items()}

    def tapped_forward(taps: Weights):
        pred, tapped = forward(taps)
        return pred, tapped.inputs

    pred, vjp, inputs = jax.vjp(tapped_forward, taps, has_aux=True)
    (D,) = vjp(residual(pred))
    return {name: Write(inputs[name], D[name]) for name in taps}, recorded.kinds, pred


def _outputs(memory: Memory, recorder: Tapped, k: Array) -> dict[str, Array]:
    memory.apply(recorder, k)
    return recorder.outputs
