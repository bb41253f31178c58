"""Gate projections: from tokens to the gates that a rule's parts declare as learned."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from miras.array_typing import Array, Floats, typed
from miras.layers.coupled_gates import AngleGates
from miras.layers.param import LinearGeneral, LowRank, param
from miras.layers.scaled_decays import ScaledDecays
from miras.parts.gate import Gate
from miras.rule.rule import Rule


@typed
def squash(gate: Gate, logits: Floats) -> Floats:
    """Map logits to the gate's range, in its own units (a log for "log_unit")."""
    if gate.range == "bounded":
        return gate.upper * jax.nn.sigmoid(logits)
    if gate.range == "log_unit":
        return jax.nn.log_sigmoid(logits)
    if gate.range == "real":
        return logits
    return jax.nn.softplus(logits)


def unsquash(gate: Gate, heads: int) -> np.ndarray:
    """The finite logits per head, [H], that give the gate's initial value."""
    value = gate.constant(heads)
    if gate.range == "log_unit":
        value = np.exp(np.minimum(value, math.log1p(-1e-4)))  # alpha = 1 would need infinity
        return np.log(value / (1 - value))
    if gate.range == "bounded":
        return np.log(value / (gate.upper - value))
    if gate.range == "real":
        return value
    return value + np.log(-np.expm1(-value))  # log(exp(value) - 1) without overflow


def unbound(gate: Gate, heads: int, bound: float) -> np.ndarray:
    """The logits z per head, [H], with -bound sigmoid(-z) at a log decay's initial value.

    An initial value outside of (-bound, 0) is moved into it, by 1e-4 of the bound.
    """
    share = np.clip(-gate.constant(heads) / bound, 1e-4, 1 - 1e-4)
    return np.log((1 - share) / share)


class GateProjections(nnx.Module):
    """A value per token for each learned gate, initially the gate's initial value.

    A gate with `per_token=False` has one learned value for all tokens.

    Gates per head have a linear projection, gates per channel one of low rank (MIRAS, 2504.13173,
    section 5.3). Both start at 0. A gate that is `drawn` has a linear projection that starts as
    those of keys and values do.

    Args:
        rule: the rule.
        width: of the tokens.
        heads: H.
        rank: of the projections of gates per channel.
        terms: associations per token, each with its own rate; None for keys without that axis.
        rngs: stream `params`.
        coupled: maps the projected gates to those that the rule is given; None for themselves.
        channels: width of the keys and of the values; width / heads each if not given.
        rate_bias: whether the projection of a rate has a bias.
        tanh: whether projections of low rank have a tanh between their factors.
        decay_bound: c > 0 for log decays -c sigmoid(-z) of a projection z, which lie in (-c, 0);
            None for log sigmoid(z).
    """

    def __init__(
        self,
        rule: Rule,
        width: int,
        heads: int,
        *,
        rank: int,
        terms: int | None,
        rngs: nnx.Rngs,
        coupled: AngleGates | ScaledDecays | None = None,
        channels: tuple[int, int] | None = None,
        rate_bias: bool = True,
        tanh: bool = False,
        decay_bound: float | None = None,
    ):
        self.coupled, self.decay_bound = coupled, decay_bound
        self.learned = tuple(gate for gate in rule.gates if gate.learned)
        self.kernels = nnx.Dict()
        self.biases = nnx.Dict()
        key, value = channels or (width // heads,) * 2
        sides = {"key": key, "value": value, "slot": rule.memory.slots}
        for gate in self.learned:
            shape = (heads,)
            if gate.role == "rate" and terms is not None:
                shape += (terms,)
            if gate.side != "head":
                shape = (*shape, sides[gate.side])
            axes = ("heads", *[None] * (len(shape) - 1))
            if gate.per_token:
                whole = gate.side == "head" or gate.drawn
                self.kernels[gate.name] = (
                    LinearGeneral((width, *shape), ("embed", *axes), rngs, start=float(gate.drawn))
                    if whole
                    else LowRank(width, rank, shape, axes, rngs, tanh=tanh)
                )
            if gate.role == "rate" and gate.per_token and not rate_bias:
                continue
            bound = self._bound(gate)
            start = unsquash(gate, heads) if bound is None else unbound(gate, heads, bound)
            start = jnp.asarray(start, jnp.float32)
            start = jnp.broadcast_to(start.reshape(heads, *[1] * (len(shape) - 1)), shape)
            self.biases[gate.name] = param(start, axes)

    def _bound(self, gate: Gate) -> float | None:
        """c of a decay in (exp(-c), 1)."""
        return self.decay_bound if gate.role == "decay" and gate.range == "log_unit" else None

    def __call__(self, x: Array) -> dict[str, Array]:
        """Project tokens [B, T, width] to gates [B, T, H, ...], float32, by name."""
        x = x.astype(jnp.promote_types(jnp.float32, x.dtype))
        gates = {}
        for gate in self.learned:
            logits, bound = self._logits(gate, x), self._bound(gate)
            within = squash(gate, logits) if bound is None else -bound * jax.nn.sigmoid(-logits)
            gates[gate.name] = within
        return gates if self.coupled is None else self.coupled(gates)

    def _logits(self, gate: Gate, x: Array) -> Array:
        """[B, T, H, ...]."""
        if gate.name not in self.biases:
            return self.kernels[gate.name](x)
        bias = self.biases[gate.name][...].astype(x.dtype)
        if not gate.per_token:
            return jnp.broadcast_to(bias, (*x.shape[:2], *bias.shape))
        return self.kernels[gate.name](x) + bias
