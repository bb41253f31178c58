"""Vector memory: one number per channel, the state of element-wise linear RNNs."""

import dataclasses

import jax
import jax.numpy as jnp

from miras.array_typing import Array, Weights
from miras.config import require
from miras.memory.base import Memory, Reader, register
from miras.parts.formula import MemoryFormula, wrap
from miras.parts.gate import Side


@register("vector")
@dataclasses.dataclass(frozen=True)
class Vector(Memory):
    """M(W, x) = x * w1 with w1 of shape [D]; needs dk = dv = D. MIRAS (2504.13173), section 3."""

    def init(self, key: jax.Array, dk: int, dv: int) -> Weights:
        """w1 = 0."""
        require(dk == dv, f"a vector memory needs dk = dv, not dk={dk}, dv={dv}; use 'matrix'.")
        return {"w1": jnp.zeros(dv, jnp.float32)}

    def apply(self, read: Reader, x: Array) -> Array:
        """x * w1."""
        return read.scale("w1", x)

    def sides(self, name: str) -> tuple[Side | None, ...]:
        """Each entry is a channel."""
        del name
        return ("key",)

    def formula(self, gates) -> MemoryFormula:
        """x * w, element by element."""
        return MemoryFormula(
            answer=lambda W, x: rf"{x} \odot {W}", gradient=lambda x, e: rf"{x} \odot {wrap(e)}"
        )

    def sources(self) -> tuple[str, ...]:
        """MIRAS."""
        return ("MIRAS, arXiv 2504.13173, section 3",)
