"""Gate projections: from a token to exactly the gates that a rule's parts declare as learned."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from miras.array_typing import Array
from miras.layers.param import Linear, LowRank, param
from miras.parts.gate import Gate
from miras.rule.rule import Rule


def squash(gate: Gate, logits: Array) -> Array:
    """Any number into the gate's range, in its own units (a log for "log_unit")."""
    if gate.range == "bounded":
        return gate.upper * jax.nn.sigmoid(logits)
    if gate.range == "log_unit":
        return jax.nn.log_sigmoid(logits)
    return jax.nn.softplus(logits)


def unsquash(gate: Gate, heads: int) -> np.ndarray:
    """The logits per head, [H], at which the gate has its starting value; finite."""
    value = gate.constant(heads)
    if gate.range == "log_unit":
        value = np.exp(np.minimum(value, math.log1p(-1e-4)))  # alpha = 1 would need infinity
        return np.log(value / (1 - value))
    if gate.range == "bounded":
        return np.log(value / (gate.upper - value))
    return value + np.log(-np.expm1(-value))  # log(exp(value) - 1) without overflow


class GateProjections(nnx.Module):
    """A value per token for each learned gate; starts at the gate's value for every token.

    Gates per head come from a linear projection, gates per channel from one of low rank (MIRAS,
    2504.13173, section 5.3).

    Args:
        rule: whose gates to make.
        width: of the tokens.
        heads: H.
        rank: of the projections of gates per channel.
        terms: associations a token makes, each with its own rate; None for one.
        rngs: stream `params`.
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
    ):
        self.learned = tuple(gate for gate in rule.gates if gate.learned)
        self.kernels = nnx.Dict()
        self.biases = nnx.Dict()
        head = width // heads
        channels = {"key": head, "value": head, "slot": rule.memory.slots}
        for gate in self.learned:
            shape = (heads,)
            if gate.role == "rate" and terms is not None:
                shape += (terms,)
            axes = ("heads", *[None] * (len(shape) - 1))
            if gate.side == "head":
                kernel = Linear((width, *shape), ("embed", *axes), rngs, start=0.0)
            else:
                shape, axes = (*shape, channels[gate.side]), (*axes, None)
                kernel = LowRank(width, rank, shape, axes, rngs)
            self.kernels[gate.name] = kernel
            start = jnp.asarray(unsquash(gate, heads), jnp.float32)
            start = jnp.broadcast_to(start.reshape(heads, *[1] * (len(shape) - 1)), shape)
            self.biases[gate.name] = param(start, axes)

    def __call__(self, x: Array) -> dict[str, Array]:
        """[B, T, width] to a dict of [B, T, H, ...], float32."""
        x = x.astype(jnp.promote_types(jnp.float32, x.dtype))
        return {
            gate.name: squash(gate, self.kernels[gate.name](x) + self.biases[gate.name][...])
            for gate in self.learned
        }
