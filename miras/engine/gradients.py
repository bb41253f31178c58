"""Gradients: the factored gradients of a run of tokens, for every weight and every term."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from miras.array_typing import Array, Weights
from miras.bias import Bias
from miras.engine.devices import varying_alike
from miras.engine.readers import FactoredGradient, FactoredGradients, OwnSteps, ReadKind
from miras.memory import Fit, Memory, Reader
from miras.parts.gate import Side
from miras.rule.rule import Rule


class Term(NamedTuple):
    """One association of each of K tokens.

    Attributes:
        k: key at which the error is read, [K, dk].
        k_write: key along which it is written, [K, dk]; None for k.
        v: value, [K, dv].
        rate: what scales the gradient, [K, 1], or [K, dv] per value channel; 0 where masked.
        rate_in: what scales its key, [K, dk]; None for 1.
    """

    k: Array
    k_write: Array | None
    v: Array
    rate: Array
    rate_in: Array | None


class Gradients(NamedTuple):
    """The gradients of a run of K tokens.

    Attributes:
        writes: by weight, one per term, E scaled by the terms' rates.
        kinds: how each weight is read.
        loss: inner loss of each token, summed over its terms, [K].
    """

    writes: FactoredGradients
    kinds: dict[str, ReadKind]
    loss: Array


def gradients(
    rule: Rule, reader: Reader, terms: tuple[Term, ...], gates: Mapping[str, Array]
) -> Gradients:
    """The gradients at the weights that a reader gives, term by term.

    Under a sequential algorithm each term also sees the token's own earlier ones.

    Args:
        rule: the four parts.
        reader: the weights at which gradients are taken.
        terms: of K tokens.
        gates: those that gradients depend on, by name [K, ...].
    """
    gates = rule.bias.own_gates(gates)
    writes: FactoredGradients = {}
    kinds: dict[str, ReadKind] = {}
    loss = jnp.zeros(terms[0].k.shape[0], terms[0].v.dtype)
    for j, term in enumerate(terms):
        at = OwnSteps(reader, writes) if rule.algorithm.sequential and j > 0 else reader
        found, kinds, fits = factored(
            rule.memory,
            at,
            term.k,
            term.v,
            functools.partial(_residual, rule.bias, term, gates),
        )
        loss = loss + loss_of(rule.bias, fits, gates)
        for name, write in found.items():
            X = write.X
            if term.k_write is not None:
                X = rule.memory.features(reader, term.k_write)
            X = X if term.rate_in is None else X * term.rate_in
            E = write.E if _per_token(term) else term.rate * write.E
            writes[name] = (*writes.get(name, ()), FactoredGradient(X, E))
    return Gradients(writes, kinds, loss)


def loss_of(bias: Bias, fits: tuple[Fit, ...], gates: Mapping[str, Array]) -> Array:
    """The loss of each token, [C], summed over what it fits."""
    losses = [bias.loss(*fit, gates) for fit in fits]
    return sum(losses[1:], losses[0])


def _residual(bias: Bias, term: Term, gates: Mapping[str, Array], fit: Fit) -> Array:
    """d loss / d pred; a scalar rate is applied here, per-channel rates in `gradients`."""
    residual = bias.residual(*fit, gates)
    return term.rate * residual if _per_token(term) else residual


def _per_token(term: Term) -> bool:
    return term.rate.shape[-1] == 1


def associated(
    rule: Rule, term: Term, gates: Mapping[str, Array], decays: Mapping[Side, Array]
) -> tuple[FactoredGradients, dict[str, ReadKind]]:
    """Writes of a Hebbian memory; they do not depend on its weights.

    Args:
        rule: whose memory `associates`.
        term: of K tokens.
        gates: those that gradients depend on, by name [K, ...].
        decays: log decays by side.
    """
    pairs = rule.memory.associations(term.k, term.v, rule.memory.own_gates(gates), decays)
    writes: FactoredGradients = {
        name: (FactoredGradient(x, -term.rate * e),) for name, (x, e) in pairs.items()
    }
    return writes, dict.fromkeys(pairs, "linear")


@dataclasses.dataclass
class Tapped:
    """Reads through another reader, records each input and adds a tap to each output.

    The derivative of a loss by a tap, at tap 0, is the D of the factored gradient.

    Attributes:
        base: the reader that reads.
        taps: zeros [C, out] by weight name; None records only.
        inputs: filled on the way: X by weight name.
        kinds: filled on the way: how each weight was read.
        outputs: filled on the way: what each weight gave.
    """

    base: Reader
    taps: Weights | None
    inputs: dict[str, Array] = dataclasses.field(default_factory=dict)
    kinds: dict[str, ReadKind] = dataclasses.field(default_factory=dict)
    outputs: dict[str, Array] = dataclasses.field(default_factory=dict)

    def linear(self, name: str, x: Array) -> Array:
        """x @ W + tap."""
        return self._tap("linear", name, x, self.base.linear(name, x))

    def transposed(self, name: str, x: Array) -> Array:
        """x @ W^T + tap."""
        return self._tap("transposed", name, x, self.base.transposed(name, x))

    def scale(self, name: str, x: Array) -> Array:
        """x * W + tap."""
        return self._tap("scale", name, x, self.base.scale(name, x))

    def shift(self, name: str, x: Array) -> Array:
        """x + W + tap."""
        return self._tap("shift", name, x, self.base.shift(name, x))

    def fixed(self, name: str) -> Array:
        """A fixed weight."""
        return self.base.fixed(name)

    def gate(self, name: str) -> Array:
        """A gate of the memory."""
        return self.base.gate(name)

    def _tap(self, kind: ReadKind, name: str, x: Array, y: Array) -> Array:
        assert name not in self.inputs, f"memory weight {name!r} is read twice in one apply"
        self.inputs[name], self.kinds[name], self.outputs[name] = x, kind, y
        return y if self.taps is None else _tapped(y, self.taps[name])


@jax.custom_jvp
def _tapped(y: Array, tap: Array) -> Array:
    """y, with the derivatives of y + tap at tap 0."""
    del tap
    return y


@_tapped.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    return _tapped(*primals), tangents[0] + tangents[1]


def factored(
    memory: Memory, reader: Reader, k: Array, v: Array, residual: Callable[[Fit], Array]
) -> tuple[dict[str, FactoredGradient], dict[str, ReadKind], tuple[Fit, ...]]:
    """The gradients of all weights for all tokens, in factored form.

    Args:
        memory: the structure M.
        reader: the weights at which gradients are taken.
        k: keys [C, dk].
        v: values [C, dv].
        residual: d loss / d pred as a function of what the memory fits, [C, D].

    Returns:
        X and D by weight name, how each weight is read, and what the memory fits.
    """
    recorded = Tapped(reader, None)
    shapes = jax.eval_shape(lambda: _outputs(memory, recorded, k, v))
    taps = {name: jnp.zeros(s.shape, s.dtype) for name, s in shapes.items()}
    # Where tokens differ from device to device taps must, or their derivatives are summed.
    taps, k, v = varying_alike((taps, k, v))

    def forward(taps: Weights):
        tapped = Tapped(reader, taps)
        fits = memory.fits(tapped, k, v)
        return tuple(fit.pred for fit in fits), (fits, tapped.inputs)

    _, vjp, (fits, inputs) = jax.vjp(forward, taps, has_aux=True)
    (D,) = vjp(tuple(residual(fit) for fit in fits))
    writes = {name: FactoredGradient(inputs[name], D[name]) for name in taps}
    turned = (name for name, kind in recorded.kinds.items() if kind == "transposed")
    return writes | {name: writes[name].turned for name in turned}, recorded.kinds, fits


def _outputs(memory: Memory, recorder: Tapped, k: Array, v: Array) -> dict[str, Array]:
    memory.fits(recorder, k, v)
    return recorder.outputs
