"""A memory with a gate of its own."""

import dataclasses

import jax
import jax.numpy as jnp

from miras.memory import Memory, register
from miras.parts.formula import Line, MemoryFormula
from miras.parts.gate import Gate


@register("gated")
@dataclasses.dataclass(frozen=True)
class Gated(Memory):
    """M(W, x) = tanh(width_t x @ w1) @ w2 + x @ w3, width_t > 0 of the token that reads.

    Attributes:
        width: where the gate starts; > 0.
    """

    width: float = 1.0

    def init(self, key, dk, dv):
        """Normal weights."""
        keys = jax.random.split(key, 3)
        return {
            "w1": jax.random.normal(keys[0], (dk, 2 * dk), jnp.float32),
            "w2": 0.5 * jax.random.normal(keys[1], (2 * dk, dv), jnp.float32),
            "w3": 0.5 * jax.random.normal(keys[2], (dk, dv), jnp.float32),
        }

    def gates(self):
        """width_t > 0."""
        return (Gate("width", self.width, "positive", True, symbol=r"\omega"),)

    def sides(self, name):
        """Rows of w1 and w3 are key channels, columns of w2 and w3 value channels."""
        return {"w1": ("key", None), "w2": (None, "value"), "w3": ("key", "value")}[name]

    def apply(self, read, x):
        """tanh(width_t x @ w1) @ w2 + x @ w3."""
        hidden = jnp.tanh(read.gate("width")[:, None] * read.linear("w1", x))
        return read.linear("w2", hidden) + read.linear("w3", x)

    def formula(self, gates):
        """What M is."""
        width = gates["width"]
        return MemoryFormula(
            answer=lambda W, x: f"M({W}, {x})",
            lines=(Line("M(W, x)", rf"\tanh({width} x W_1) W_2 + x W_3"),),
        )
