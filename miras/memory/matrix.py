"""Matrix memory: the outer-product state of linear attention and of the delta rule."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from miras.array_typing import Array, Weights
from miras.config import added
from miras.memory.base import Memory, Reader, register
from miras.parts.formula import Line, MemoryFormula, raised, wrap
from miras.parts.gate import Side


@register("matrix")
@dataclasses.dataclass(frozen=True)
class Matrix(Memory):
    """M(W, x) = x @ w1 [+ b1] with w1 of shape [dk, dv]. MIRAS (2504.13173), section 3.

    Attributes:
        biases: b1 [dv], which the inner loop writes as it does w1, and whose initial value is
            learned as well (TTT, 2407.04620). No closed form is known for it then.
    """

    separable: ClassVar[bool] = True

    biases: bool = added(False)

    def init(self, key: jax.Array, dk: int, dv: int) -> Weights:
        """All 0: an empty memory reads nothing."""
        weights = {"w1": jnp.zeros((dk, dv), jnp.float32)}
        return weights | ({"b1": jnp.zeros(dv, jnp.float32)} if self.biases else {})

    def apply(self, read: Reader, x: Array) -> Array:
        """x @ w1 [+ b1]."""
        y = read.linear("w1", x)
        return read.shift("b1", y) if self.biases else y

    def sides(self, name: str) -> tuple[Side | None, ...]:
        """Rows are key channels, columns and the entries of b1 value channels."""
        return ("value",) if name == "b1" else ("key", "value")

    @property
    def is_linear(self) -> bool:
        """Without a bias."""
        return not self.biases

    def formula(self, gates) -> MemoryFormula:
        """x W."""
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
