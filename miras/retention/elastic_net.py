"""Elastic net retention: l2 decay and l1 shrinkage, hard or smooth."""

import dataclasses
import math
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from miras.array_typing import Array, Leaf
from miras.config import require
from miras.parts.formula import Line, RetentionFormula, number
from miras.parts.gate import Side
from miras.retention.base import LinkEvery, Retention, register


def shrink(z: Leaf, gamma: Array | float, threshold: str) -> Leaf:
    """S_gamma(z): sign(z) max(|z| - gamma, 0), or the paper's smooth |z| arctan(z / gamma) 2/pi.

    The smooth form is odd and never 0 away from 0: it damps small weights and forgets none.
    """
    if threshold == "hard":
        return jnp.sign(z) * jnp.maximum(jnp.abs(z) - gamma, 0.0)
    positive = jnp.asarray(gamma) > 0  # at 0, as where nothing is written, z stays as it is
    smooth = jnp.abs(z) * jnp.arctan(z / jnp.where(positive, gamma, 1.0)) * (2 / math.pi)
    return jnp.where(positive, smooth, z)


@register("elastic_net")
@dataclasses.dataclass(frozen=True)
class ElasticNet(Retention):
    """l2 and l1 retention at once. MIRAS (2504.13173), equations 22 and 23.

    form="proximal" is learning-retaining (22):

        W_t = S_gamma(lam W_{t-1} - zeta g_t)
        lam = c2 / (c2 + eta_t)    zeta = eta_t lam    gamma = eta_t c2 / (c1 (eta_t + c2))

    the minimiser of <W, g> + ||W - W_{t-1}||^2 / (2 eta) + ||W||^2 / (2 c2) + ||W||_1 / c1: soft
    forgetting by lam, and hard forgetting of what falls below gamma. form="ftrl" is follow the
    regularised leader (23), A_t = A_{t-1} - eta_t g_t, W_t = S_gamma(A_t): weights below the
    threshold read as zero while their evidence goes on adding up.

    Attributes:
        form: which of the two.
        c1: strength of l1, inversely; > 0; for "proximal".
        c2: strength of l2, inversely; > 0; for "proximal".
        gamma: the threshold of "ftrl", the paper's eta / c1, constant as in its derivation; > 0.
        threshold: "hard" (the minimiser's) or "smooth" (as printed), see `shrink`.
        link_every: see `Retention`; "proximal" with "chunk" shrinks by the last token's gamma.
    """

    reach: ClassVar[str | None] = "c1"

    form: Literal["proximal", "ftrl"] = "proximal"
    c1: float = 100.0
    c2: float = 10.0
    gamma: float = 0.01
    threshold: Literal["hard", "smooth"] = "hard"
    link_every: LinkEvery = "token"

    def validate(self) -> None:
        """Check ranges."""
        for name in ("c1", "c2", "gamma"):
            value = getattr(self, name)
            require(value > 0, f"ElasticNet.{name}={value} must be positive.")

    @property
    def linked(self) -> LinkEvery:
        """`link_every`."""
        return self.link_every

    @property
    def proximal(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Under form="proximal"."""
        return self.form == "proximal"

    @property
    def uses_rate(self) -> bool:
        """Also under "ftrl", whose threshold is derived for one rate."""
        return True

    @property
    def decays(self) -> tuple[tuple[str, Side], ...]:
        """lam under "proximal", which `effective` makes of the rate."""
        return (("log_decay", "head"),) if self.proximal else ()

    def effective(self, gates: dict[str, Array]) -> dict[str, Array]:
        """log lam for the decay, zeta for the rate, and gamma."""
        if not self.proximal:
            return gates
        eta = gates["lr"]
        log_keep = -jnp.log1p(eta / self.c2)
        zeta = eta * jnp.exp(log_keep)
        return {**gates, "log_decay": log_keep, "lr": zeta, "gamma": zeta / self.c1}

    def prox(self, new: Leaf, old: Leaf, gates: dict[str, Array]) -> Leaf:
        """S_gamma(new)."""
        return shrink(new, gates["gamma"], self.threshold)

    def link(self, A: Leaf) -> Leaf:
        """S_gamma(A) under "ftrl"."""
        return A if self.proximal else shrink(A, self.gamma, self.threshold)

    def unlink(self, W: Leaf) -> Leaf:
        """A = W + gamma sign(W); for the smooth form Newton's method on S_gamma(A) = W."""
        if self.proximal:
            return W
        start = W + self.gamma * jnp.sign(W)
        return start if self.threshold == "hard" else _solve(W, start, self.gamma)

    def formula(self, gates) -> RetentionFormula:
        """The shrinkage, and under "proximal" the decay, rate and threshold that eta_t gives."""
        shrinkage = _shrinkage(self.threshold)
        if not self.proximal:
            gamma = number(self.gamma)
            start = lambda W: rf"{W} + {gamma} \mathrm{{sign}}({W})"  # noqa: E731
            if self.threshold == "smooth":
                start = lambda W: rf"\mathrm{{S}}^{{-1}}({W}, {gamma})"  # noqa: E731
            return RetentionFormula(
                link=lambda A: rf"\mathrm{{S}}({A}, {gamma})", start=start, where=(shrinkage,)
            )
        eta, c1, c2 = gates["lr"], number(self.c1), number(self.c2)
        index = "_t" if "_t" in eta else ""
        keep, tau = rf"\lambda{index}", rf"\tau{index}"
        return RetentionFormula(
            decay=keep,
            rate=f"{eta} {keep}",
            prox=lambda new, old, step: rf"\mathrm{{S}}({new}, {tau})",
            where=(
                Line(keep, rf"\frac{{{c2}}}{{{c2} + {eta}}}"),
                Line(tau, rf"\frac{{{eta} {keep}}}{{{c1}}}"),
                shrinkage,
            ),
        )

    def sources(self) -> tuple[str, ...]:
        """MIRAS."""
        return (f"MIRAS, arXiv 2504.13173, eq. {22 if self.proximal else 23}",)


def _shrinkage(threshold: str) -> Line:
    """LaTeX of `shrink`."""
    if threshold == "hard":
        return Line(r"\mathrm{S}(z, c)", r"\mathrm{sign}(z) \odot \max(|z| - c, 0)")
    return Line(r"\mathrm{S}(z, c)", r"\frac{2}{\pi} |z| \odot \arctan(z / c)")


def _solve(W: Leaf, start: Leaf, gamma: float) -> Leaf:
    """A with S_gamma(A) = W under the smooth form, by Newton's method on |A|, where S is convex."""
    target = jnp.abs(W)
    aim, first = jax.lax.stop_gradient((target, jnp.abs(start) + gamma))

    def slope(a):
        return (jnp.arctan(a / gamma) + a * gamma / (a * a + gamma * gamma)) * (2 / math.pi)

    def newton(_, a):
        error = a * jnp.arctan(a / gamma) * (2 / math.pi) - aim
        return jnp.maximum(a - error / jnp.maximum(slope(a), 1e-12), 0.0)

    root = jax.lax.fori_loop(0, 30, newton, first)
    # One more step, through which the derivative by W is that of the implicit function.
    error = root * jnp.arctan(root / gamma) * (2 / math.pi) - target
    root = jnp.where(target > 0, root - error / jnp.maximum(slope(root), 1e-12), 0.0)
    return jnp.sign(W) * root
