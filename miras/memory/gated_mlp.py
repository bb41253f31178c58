"""Gated MLP memory: SwiGLU, the fast weights of LaCT."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from miras.array_typing import Array, Weights
from miras.config import require
from miras.memory import norms
from miras.memory.base import Memory, Reader, register
from miras.memory.mlp import shapes
from miras.memory.norms import normalise
from miras.parts.formula import Line, MemoryFormula
from miras.parts.gate import Side


@register("gated_mlp")
@dataclasses.dataclass(frozen=True)
class GatedMLP(Memory):
    """M(W, x) = [x +] norm((silu(x @ w1) * (x @ w3)) @ w2).

    LaCT (2505.23884), equation 5, by its names: w1 and w3 are [dk, hidden], w2 is [hidden, dv],
    hidden = expansion * dk; SwiGLU is 2002.05202.

    Attributes:
        expansion: hidden width over dk, where `hidden` is not given.
        hidden: hidden width.
        residual: add x, which needs dk = dv.
        norm: of the output before the residual, without learned parameters.
        eps: added to the variance (layer) or the mean square (rms).
    """

    expansion: int = 2
    hidden: int | None = None
    residual: bool = False
    norm: Literal["layer", "rms"] | None = None
    eps: float = 1e-6

    def validate(self) -> None:
        """Check ranges."""
        require(self.expansion >= 1, f"GatedMLP.expansion={self.expansion} must be at least 1.")
        require(
            self.hidden is None or self.hidden >= 1,
            f"GatedMLP.hidden={self.hidden} must be at least 1, or none.",
        )
        require(self.eps > 0, f"GatedMLP.eps={self.eps} must be positive.")

    def init(self, key: jax.Array, dk: int, dv: int) -> Weights:
        """Normal weights: inputs of the gate and outputs have about unit variance."""
        require(
            dk == dv or not self.residual,
            f"a gated_mlp memory with residual=True needs dk = dv, not dk={dk}, dv={dv}.",
        )
        hidden = self.hidden or self.expansion * dk
        keys = jax.random.split(key, 3)
        # silu of a unit normal has a mean square of about 0.36; times an independent unit normal.
        std = 1.0 if self.norm is not None else (0.36 * hidden) ** -0.5
        return {
            "w1": jax.random.normal(keys[0], (dk, hidden), jnp.float32),
            "w2": std * jax.random.normal(keys[1], (hidden, dv), jnp.float32),
            "w3": jax.random.normal(keys[2], (dk, hidden), jnp.float32),
        }

    def sides(self, name: str) -> tuple[Side | None, ...]:
        """Rows of w1 and w3 are key channels, columns of w2 value channels."""
        return (None, "value") if name == "w2" else ("key", None)

    def apply(self, read: Reader, x: Array) -> Array:
        """[x +] norm(SwiGLU(x))."""
        hidden = jax.nn.silu(read.linear("w1", x)) * read.linear("w3", x)
        z = normalise(read.linear("w2", hidden), self.norm, self.eps)
        return x + z if self.residual else z

    def formula(self, gates) -> MemoryFormula:
        """SwiGLU, and what follows it."""
        z = norms.normed(self.norm, r"(\mathrm{SiLU}(x W_1) \odot (x W_3)) W_2")
        return MemoryFormula(
            answer=lambda W, x: f"M({W}, {x})",
            lines=(Line("M(W, x)", f"x + {z}" if self.residual else z),),
            where=(
                *shapes(["W_1, W_3", "W_2"], self.hidden, self.expansion),
                *norms.where(self.norm, self.eps),
            ),
        )

    def sources(self) -> tuple[str, ...]:
        """LaCT, SwiGLU."""
        return ("LaCT, arXiv 2505.23884, eq. 5", "SwiGLU, arXiv 2002.05202")
