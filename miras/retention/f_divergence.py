"""f-divergence retention: weights stay a distribution near the last one."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from miras.array_typing import Array, Leaf
from miras.config import require
from miras.parts.formula import Line, RetentionFormula, number
from miras.retention.base import LinkEvery, Retention, register


class Generator(NamedTuple):
    """A generator f with f(1) = f'(1) = 0, by the inverse of its slope.

    Attributes:
        inverse: g = (f')^-1, held at 0 where the weight would turn negative.
        slope: g'.
        limit: arguments lie below it; g has a pole there.
    """

    inverse: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    limit: float


GENERATORS = {
    # t log t - t + 1
    "kl": Generator(jnp.exp, jnp.exp, jnp.inf),
    # (t - 1)^2
    "chi2": Generator(
        lambda x: jnp.maximum(0.0, 1 + x / 2), lambda x: jnp.where(x > -2, 0.5, 0.0), jnp.inf
    ),
    # (sqrt(t) - 1)^2
    "hellinger": Generator(lambda x: (1 - x) ** -2.0, lambda x: 2 * (1 - x) ** -3.0, 1.0),
}


@register("f_divergence")
@dataclasses.dataclass(frozen=True)
class FDivergence(Retention):
    """W_t = W_{t-1} * g(U_t - zeta_t), g = (f')^-1. MIRAS (2504.13173), equation 18.

    The minimiser of -<W, U_t> + sum W_{t-1} f(W / W_{t-1}) over weights >= 0 whose slices sum to
    `scale`; zeta_t, one per slice, is solved for. The memory needs weights of which any
    distribution makes sense, such as an MLP's.

    Attributes:
        generator: "kl", "chi2" or "hellinger". Under "chi2" a weight that reaches 0 stays there.
        scale: c, the sum of each slice; > 0.
        axis: of a slice: 0 is `in`, 1 is `out`.
        link_every: "token" only, since the map multiplies.
    """

    proximal: ClassVar[bool] = True
    reach: ClassVar[str | None] = "scale"

    generator: Literal["kl", "chi2", "hellinger"] = "kl"
    scale: float = 1.0
    axis: Literal[0, 1] = 0
    link_every: Literal["token"] = "token"

    def validate(self) -> None:
        """Check ranges."""
        require(self.scale > 0, f"FDivergence.scale={self.scale} must be positive.")

    @property
    def linked(self) -> LinkEvery:
        """`link_every`."""
        return self.link_every

    def constrain(self, W: Leaf) -> Leaf:
        """Any array as the logits of a weight on the simplex."""
        return self.scale * jax.nn.softmax(W, axis=min(self.axis, W.ndim - 1))

    def prox(self, new: Leaf, old: Leaf, gates: dict[str, Array]) -> Leaf:
        """Old * g(U - zeta), U = new - old."""
        f, axis = GENERATORS[self.generator], min(self.axis, new.ndim - 1)
        step = new - old
        zeta = _zeta(*jax.lax.stop_gradient((step, old)), f, self.scale, axis)
        # One more Newton step, through which the derivative is that of the implicit function.
        excess = jnp.sum(old * f.inverse(step - zeta), axis, keepdims=True) - self.scale
        slope = jnp.sum(jax.lax.stop_gradient(old * f.slope(step - zeta)), axis, keepdims=True)
        zeta = zeta + excess / jnp.where(slope > 0, slope, 1.0)
        W = old * f.inverse(step - zeta)
        return self.scale * W / jnp.sum(W, axis, keepdims=True)  # the last rounding error

    def formula(self, gates) -> RetentionFormula:
        """The map, its g, and what zeta_t is solved for."""
        g = {
            "kl": r"\exp(z)",
            "chi2": r"\max(0, 1 + z / 2)",
            "hellinger": r"(1 - z)^{-2}",
        }[self.generator]
        slice_ = "column" if self.axis == 0 else "row"
        return RetentionFormula(
            prox=lambda new, old, step: rf"{old} \odot g({step} - \zeta_t)",
            where=(
                Line("g(z)", g, when=f"(f')^-1 of the {self.generator} divergence"),
                Line(
                    r"\zeta_t",
                    rf"\sum W_t = {number(self.scale)}",
                    r"\text{ such that }",
                    f"over each {slice_} of each weight, which has a zeta of its own",
                ),
            ),
        )

    def sources(self) -> tuple[str, ...]:
        """MIRAS."""
        return ("MIRAS, arXiv 2504.13173, eq. 18",)


def _zeta(step: Leaf, old: Leaf, f: Generator, scale: float, axis: int) -> Array:
    """The root of sum(old g(step - zeta)) = scale per slice, by bisection.

    The sum falls as zeta grows. At the largest step all arguments are <= 0 and g <= 1, so the sum
    is <= scale; at the smallest it is >= scale; and arguments must stay below g's pole.
    """
    high = jnp.max(step, axis, keepdims=True)
    low = jnp.min(step, axis, keepdims=True)
    if f.limit < jnp.inf:
        low = jnp.maximum(low, high - f.limit * (1 - 1e-6))

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        above = jnp.sum(old * f.inverse(step - middle), axis, keepdims=True) > scale
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    low, high = jax.lax.fori_loop(0, 60, halve, (low, high))
    return (low + high) / 2
