"""l_q retention: Moneta's normalisation of the accumulated gradients."""

import dataclasses
from typing import Literal

import jax.numpy as jnp

from miras.array_typing import Leaf
from miras.config import require
from miras.parts.formula import RetentionFormula, number
from miras.parts.norms import lq_norm, power
from miras.retention.base import Decaying, LinkEvery, register


@register("lq")
@dataclasses.dataclass(frozen=True)
class Lq(Decaying):
    """A_t = alpha_t A_{t-1} + S_t, W_t = link(A_t). MIRAS (2504.13173), variant 4, equation 24.

    Norms are taken per head and per matrix. Of the two forms of the link,

    - "printed": W = A / ||A||_q^(q-2), as in the paper. Of degree 3 - q in A: with Moneta's q = 4
      a larger A gives a smaller W. Dual start A = W ||W||_q^((q-2)/(3-q)); at q = 3, where only
      the direction of A counts, A = W.
    - "mirror": W = sign(A) |A|^(q-1) / ||A||_q^(q-2), the gradient of 1/2 ||A||_q^2, from which the
      paper derives it (Shalev-Shwartz 2012, section 2.6). Its inverse is the same map with
      q' = q / (q - 1).

    Both are the identity at q = 2. An all-zero A is mapped to itself, but near 0 the printed form
    with q > 3 has no bound, and the mirror map with q > 2 no slope: a memory whose weights start at
    0 elsewhere has random ones here. Learned initial weights are the dual's under "mirror", whose
    inverse has an infinite slope at 0.

    Attributes:
        q: > 1; Moneta takes 4.
        form: "printed" or "mirror".
        link_every: see `Retention`.
    """

    q: float = 4.0
    form: Literal["printed", "mirror"] = "printed"
    link_every: LinkEvery = "token"

    def validate(self) -> None:
        """Check ranges."""
        super().validate()
        require(self.q > 1, f"Lq.q={self.q} must be above 1.")
        require(
            self.form == "mirror" or self.q == 3 or abs(self.q - 3) >= 0.25,
            f"Lq.q={self.q} in the printed form is too near 3, where a primal weight's dual start "
            "W ||W||_q^((q-2)/(3-q)) leaves the range of floats: take 3 itself, or stay 0.25 away.",
        )

    @property
    def linked(self) -> LinkEvery:
        """`link_every`."""
        return self.link_every

    @property
    def starts_at_zero(self) -> bool:
        """See `Retention`."""
        return self.q == 2

    def link(self, A: Leaf) -> Leaf:
        """Dual to primal."""
        if self.form == "mirror":
            return _mirror(A, self.q)
        return A / lq_norm(A, self.q) ** (self.q - 2)

    def constrain(self, W: Leaf) -> Leaf:
        """Under "mirror", any array as the dual start."""
        return self.link(W) if self.form == "mirror" else W

    def unlink(self, W: Leaf) -> Leaf:
        """Primal to dual."""
        if self.form == "mirror":
            return _mirror(W, self.q / (self.q - 1))
        if self.q == 3:
            return W
        return W * lq_norm(W, self.q) ** ((self.q - 2) / (3 - self.q))

    def formula(self, gates) -> RetentionFormula:
        """The link of the form, and its inverse."""
        if self.q == 2:
            return RetentionFormula(link=lambda A: A)
        mirror = self.form == "mirror"
        if mirror:
            return RetentionFormula(
                link=lambda A: _over_norm(_powered(A, self.q - 1), A, self.q, self.q - 2),
                start=lambda W: _over_norm(
                    _powered(W, 1 / (self.q - 1)),
                    W,
                    self.q / (self.q - 1),
                    (2 - self.q) / (self.q - 1),
                ),
            )
        return RetentionFormula(
            link=lambda A: _over_norm(A, A, self.q, self.q - 2),
            start=lambda W: (
                W if self.q == 3 else _over_norm(W, W, self.q, (2 - self.q) / (3 - self.q))
            ),
        )

    def sources(self) -> tuple[str, ...]:
        """MIRAS, and what it derives the map from."""
        if self.form == "printed":
            return ("MIRAS, arXiv 2504.13173, eq. 24",)
        return ("MIRAS, arXiv 2504.13173, variant 4", "Shalev-Shwartz 2012, section 2.6")


def _powered(x: str, power: float) -> str:
    return rf"\mathrm{{sign}}({x}) \odot |{x}|^{{{_number(power)}}}"


def _over_norm(above: str, x: str, q: float, power: float) -> str:
    """LaTeX of above / ||x||_q^power."""
    size = rf"\|{x}\|_{{{_number(q)}}}"
    if power < 0:
        return f"{above} \\cdot {_raised(size, -power)}"
    return rf"\frac{{{above}}}{{{_raised(size, power)}}}"


def _raised(x: str, power: float) -> str:
    return x if power == 1 else f"{x}^{{{_number(power)}}}"


def _number(value: float) -> str:
    """A number that a quotient may have made long."""
    return number(value if len(repr(value)) < 9 else float(f"{value:.6g}"))


def _mirror(x: Leaf, q: float) -> Leaf:
    if q >= 2:  # with the slope at 0 that the map has there
        return x * power(jnp.abs(x), q - 2) / lq_norm(x, q) ** (q - 2)
    return jnp.sign(x) * power(jnp.abs(x), q - 1) / lq_norm(x, q) ** (q - 2)
