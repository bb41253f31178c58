"""KL retention: Memora's weights on a scaled simplex."""

import dataclasses
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from miras.array_typing import Array, Leaf
from miras.config import require
from miras.parts.formula import Line, RetentionFormula, number, times
from miras.retention.base import Decaying, LinkEvery, register


@register("kl")
@dataclasses.dataclass(frozen=True)
class KL(Decaying):
    """W_t = c softmax(alpha_t log W_{t-1} - eta_t g_t). MIRAS (2504.13173), equation 21.

    In the dual space A = log W (up to a shift per slice, which the softmax ignores) this is
    A_t = alpha_t A_{t-1} + S_t, W_t = c softmax(A_t), so that no logarithm is taken on the way. The
    paper's training form, `link_every="chunk"`, has Memora's lag token: the first token of a chunk
    takes the true step, the rest follow the linear recursion from there.

    With `coupled` learning and retaining share one budget, as equation 21 is printed:
    W_t = c softmax((1 - lam) log W_{t-1} - eta' g_t), lam = (1/alpha)/(1/alpha + 1/eta),
    eta' = 1/(1/alpha + 1/eta), of the gates alpha_t and eta_t.

    Attributes:
        scale: c, the sum of each slice; > 0.
        axis: of a slice: 0 is `in`, 1 is `out`; a vector weight has one axis.
        coupled: see above; for gates per head.
        link_every: see `Retention`.
    """

    lag: ClassVar[bool] = True
    reach: ClassVar[str | None] = "scale"

    scale: float = 1.0
    axis: Literal[0, 1] = 0
    coupled: bool = False
    link_every: LinkEvery = "token"

    def validate(self) -> None:
        """Check ranges."""
        super().validate()
        require(self.scale > 0, f"KL.scale={self.scale} must be positive.")
        require(
            not self.coupled or self.granularity == "head",
            f"KL.coupled=True needs granularity='head', not {self.granularity!r}.",
        )

    @property
    def linked(self) -> LinkEvery:
        """`link_every`."""
        return self.link_every

    @property
    def uses_rate(self) -> bool:
        """`coupled`."""
        return self.coupled

    def effective(self, gates: dict[str, Array]) -> dict[str, Array]:
        """Coupled: log(1 - lam) = log(alpha / (alpha + eta)), eta' = alpha eta / (alpha + eta)."""
        if not self.coupled:
            return gates
        eta, log_alpha = gates["lr"], gates["log_decay"]
        alpha = jnp.exp(log_alpha)
        log_keep = log_alpha - jnp.log(alpha + eta)
        return {**gates, "log_decay": log_keep, "lr": eta * jnp.exp(log_keep)}

    def link(self, A: Leaf) -> Leaf:
        """c softmax(A) along the axis."""
        return self.scale * jax.nn.softmax(A, axis=min(self.axis, A.ndim - 1))

    def unlink(self, W: Leaf) -> Leaf:
        """log W."""
        return jnp.log(jnp.maximum(W, jnp.finfo(W.dtype).tiny))

    def constrain(self, W: Leaf) -> Leaf:
        """Any array as the logits of a weight on the simplex."""
        return self.link(W)

    def formula(self, gates) -> RetentionFormula:
        """The softmax; where coupled, the decay and the rate that share one budget."""
        softmax = softmax_over(self.axis)
        found = RetentionFormula(
            link=lambda A: times(scale(self.scale), f"{softmax}({A})"), start=lambda W: rf"\log {W}"
        )
        if not self.coupled:
            return found
        alpha, eta = gates["log_decay"], gates["lr"]
        index = "_t" if "_t" in alpha + eta else ""
        keep = rf"\kappa{index}"
        return found._replace(
            decay=keep,
            rate=f"{eta} {keep}",
            where=(
                Line(keep, rf"\frac{{{alpha}}}{{{alpha} + {eta}}}", when="1 - lambda of eq. 21"),
            ),
        )

    def sources(self) -> tuple[str, ...]:
        """MIRAS."""
        lag = ", and Memora's lag token in section 5.3" if self.link_every == "chunk" else ""
        return (f"MIRAS, arXiv 2504.13173, eq. 21{lag}",)


def softmax_over(axis: int) -> str:
    """LaTeX of the softmax over slices of a weight along an axis."""
    return (
        r"\mathrm{softmax}_{\mathrm{columns}}" if axis == 0 else r"\mathrm{softmax}_{\mathrm{rows}}"
    )


def scale(c: float) -> str:
    """LaTeX of a factor, "" for 1."""
    return "" if c == 1 else number(c)
