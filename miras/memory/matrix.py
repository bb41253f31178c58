"""Matrix memory: the outer-product state of linear attention and of the delta rule."""

import dataclasses

import jax
import jax.numpy as jnp

from miras.formula import Line, MemoryFormula, raised, wrap
from miras.gate import Side
from miras.memory.base import Memory, Reader, register
from miras.typing import Array, Weights


@register("matrix")
@dataclasses.dataclass(frozen=True)
class Matrix(Memory):
    """M(W, x) = x @ w1 with w1 of shape [dk, dv]. MIRAS (2504.13173), section 3."""

    def init(self, key: jax.Array, dk: int, dv: int) -> Weights:
        """w1 = 0: an empty memory reads nothing."""
        return {"w1": jnp.zeros((dk, dv), jnp.float32)}

    def apply(self, read: Reader, x: Array) -> Array:
        """X @ w1."""
        return read.linear("w1", x)

    def sides(self, name: str) -> tuple[Side | None, ...]:
        """Rows are key channels, columns value channels."""
        del name
        return ("key", "value")

    @property
    def is_linear(self) -> bool:
        """Yes."""
        return True

    def formula(self, gates) -> MemoryFormula:
        """X W."""
        if not self.is_linear:
            return MemoryFormula(
                answer=lambda W, x: f"M({W}, {x})", lines=(Line("M(W, x)", "x W_1 + b_1"),)
            )
        return MemoryFormula(
            answer=lambda W, x: f"{x} {W}", gradient=lambda x, e: rf"{raised(x)} {wrap(e)}"
        )

    def sources(self) -> tuple[str, ...]:
        """MIRAS."""
        return ("MIRAS, arXiv 2504.13173, section 3",)
