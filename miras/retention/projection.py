"""Retention by projection: weights kept in a ball, or rows kept at their lengths."""

import dataclasses
from typing import ClassVar, Literal

import jax.numpy as jnp

from miras.array_typing import Array, Leaf
from miras.config import require
from miras.parts.formula import Line, RetentionFormula, number
from miras.parts.norms import lq_norm, norm
from miras.retention.base import Decaying, LinkEvery, Retention, register


@register("projection")
@dataclasses.dataclass(frozen=True)
class Projection(Decaying):
    """W_t = P(alpha_t W_{t-1} + U_t), P the projection onto {||W||_2 <= radius} of each matrix.

    MIRAS (2504.13173), section 5.2: retention as a hard constraint, by projected gradient descent.

    Attributes:
        radius: of the ball, in the Frobenius norm; > 0.
        link_every: see `Retention`.
    """

    proximal: ClassVar[bool] = True
    reach: ClassVar[str | None] = "radius"

    decay: float = 1.0
    data_dependent: bool = False
    radius: float = 8.0
    link_every: LinkEvery = "token"

    def validate(self) -> None:
        """Check ranges."""
        super().validate()
        require(self.radius > 0, f"Projection.radius={self.radius} must be positive.")

    @property
    def linked(self) -> LinkEvery:
        """`link_every`."""
        return self.link_every

    def constrain(self, W: Leaf) -> Leaf:
        """P(W)."""
        return W * jnp.minimum(1.0, self.radius / lq_norm(W, 2))

    def prox(self, new: Leaf, old: Leaf, gates: dict[str, Array]) -> Leaf:
        """P(new)."""
        return self.constrain(new)

    def formula(self, gates) -> RetentionFormula:
        """P."""
        radius = number(self.radius)
        told = rf"Z \min(1, \frac{{{radius}}}{{\|Z\|_F}})"
        return RetentionFormula(
            prox=lambda new, old, step: rf"\mathrm{{P}}({new})",
            where=(Line(r"\mathrm{P}(Z)", told, when="of each weight"),),
        )

    def sources(self) -> tuple[str, ...]:
        """MIRAS."""
        return ("MIRAS, arXiv 2504.13173, section 5.2",)


@register("rows")
@dataclasses.dataclass(frozen=True)
class Rows(Retention):
    """Each row of W_{t-1} + U_t is brought back to the length that it had in W_{t-1}.

    LaCT (2505.23884), section 3: l2 weight normalisation. What is written is paid for by what stood
    in the row. A row of length 0 stays 0, so a memory whose weights start at 0 elsewhere has random
    ones here; a vector weight counts as one row.

    Attributes:
        axis: along which a row lies: 0 is `in`, so that each output has a row of its own, as in
            LaCT, whose weights are [out, in]; 1 is `out`.
        link_every: see `Retention`.
    """

    proximal: ClassVar[bool] = True

    axis: Literal[0, 1] = 0
    link_every: LinkEvery = "token"

    @property
    def linked(self) -> LinkEvery:
        """`link_every`."""
        return self.link_every

    @property
    def starts_at_zero(self) -> bool:
        """See `Retention`."""
        return False

    def prox(self, new: Leaf, old: Leaf, gates: dict[str, Array]) -> Leaf:
        """New rows at the old lengths."""
        along = min(self.axis, new.ndim - 1) - new.ndim
        length = _length(new, along)
        return new * (_length(old, along) / jnp.where(length > 0, length, 1.0))

    def formula(self, gates) -> RetentionFormula:
        """The map, and what a row is."""
        lie = "columns" if self.axis == 0 else "rows"
        name = rf"\mathrm{{{'cols' if self.axis == 0 else 'rows'}}}"
        return RetentionFormula(
            prox=lambda new, old, step: f"{name}({new}; {old})",
            where=(
                Line(
                    f"{name}(Z; W)_j",
                    r"Z_j \frac{\|W_j\|_2}{\|Z_j\|_2}",
                    when=f"for all {lie} j of each weight; a vector is one",
                ),
            ),
        )

    def sources(self) -> tuple[str, ...]:
        """LaCT."""
        return ("l2 weight normalisation: LaCT, arXiv 2505.23884, section 3",)


def _length(x: Leaf, axis: int) -> Array:
    """||x||_2 along an axis, kept; its gradient is finite at 0."""
    return jnp.swapaxes(norm(jnp.swapaxes(x, axis, -1)), axis, -1)
