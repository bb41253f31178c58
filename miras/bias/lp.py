"""l_p biases: Moneta's loss, and the value-less l_1."""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp

from miras.array_typing import Array
from miras.bias.base import Bias, register
from miras.config import require
from miras.parts.formula import BiasFormula, number
from miras.parts.norms import power


def _loss(r: Array, p: float) -> Array:
    """||r||_p^p / p: [C, dv] to [C]."""
    return jnp.sum(power(jnp.abs(r), p), axis=-1) / p


def _residual(r: Array, p: float, smooth: bool, sharpness: float, eps: float) -> Array:
    """sign(r) |r|^(p-1), [C, dv]; smoothed, if asked, where p < 2."""
    if p >= 2:
        return r * power(jnp.abs(r), p - 2)
    if smooth:
        return jnp.tanh(sharpness * r) * (r * r + eps) ** ((p - 1) / 2)
    return jnp.sign(r) * power(jnp.abs(r), p - 1)


@register("lp")
@dataclasses.dataclass(frozen=True)
class Lp(Bias):
    """loss = ||r||_p^p / p; residual sign(r) |r|^(p-1). MIRAS (2504.13173), equations 10-12.

    For p >= 2 the residual is exact. For p < 2 its derivative, which the outer loss needs, is
    infinite at 0, so with `smooth` (Remark 5) sign(r) is tanh(sharpness r) and |r| is
    sqrt(r^2 + eps).

    Attributes:
        p: >= 1; Moneta takes 3.
        smooth: smooth the residual where p < 2.
        sharpness: nu of the tanh.
        eps: under the square root.
    """

    p: float = 3.0
    smooth: bool = True
    sharpness: float = 10.0
    eps: float = 1e-6

    def validate(self) -> None:
        """Check ranges."""
        require(self.p >= 1, f"Lp.p={self.p} must be at least 1.")
        require(self.sharpness > 0, f"Lp.sharpness={self.sharpness} must be positive.")
        require(self.eps > 0, f"Lp.eps={self.eps} must be positive.")

    def loss(self, pred: Array, target: Array, gates: Mapping[str, Array]) -> Array:
        """||r||_p^p / p, [C]."""
        return _loss(pred - target, self.p)

    def residual(self, pred: Array, target: Array, gates: Mapping[str, Array]) -> Array:
        """sign(r) |r|^(p-1), [C, dv]."""
        return _residual(pred - target, self.p, self.smooth, self.sharpness, self.eps)

    def formula(self, gates) -> BiasFormula:
        """||r||_p^p / p, or the residual where it is smoothed."""
        p = number(self.p)
        if self.p < 2 and self.smooth:
            sign = rf"\tanh({number(self.sharpness)} {{r}})"
            if self.p == 1:
                return BiasFormula(lambda r: sign.replace("{r}", r))
            power = number((self.p - 1) / 2)
            size = f"(r^2 + {number(self.eps)})^{{{power}}}"
            return BiasFormula(
                lambda r: rf"{sign.replace('{r}', r)} \odot {size.replace('r^2', f'{r}^2')}"
            )
        size = rf"\mathrm{{sign}}({{r}}) \odot |{{r}}|^{{{number(self.p - 1)}}}"
        if self.p == 1:
            size = r"\mathrm{sign}({r})"
        loss = lambda q, v: rf"\frac{{1}}{{{p}}} \|{q} - {v}\|_{{{p}}}^{{{p}}}"  # noqa: E731
        if self.p == 1:
            loss = lambda q, v: rf"\|{q} - {v}\|_1"  # noqa: E731
        return BiasFormula(lambda r: size.replace("{r}", r), loss)

    def sources(self) -> tuple[str, ...]:
        """MIRAS."""
        smooth = " and remark 5" if self.p < 2 and self.smooth else ""
        return (f"MIRAS, arXiv 2504.13173, eq. 10-12{smooth}",)


@register("l1")
@dataclasses.dataclass(frozen=True)
class L1(Bias):
    """loss = ||r||_1; residual sign(r): value-less memory. MIRAS (2504.13173), equations 10-12.

    Attributes:
        smooth: tanh(sharpness r) for sign(r).
        sharpness: nu of the tanh.
    """

    smooth: bool = True
    sharpness: float = 10.0

    def validate(self) -> None:
        """Check ranges."""
        require(self.sharpness > 0, f"L1.sharpness={self.sharpness} must be positive.")

    def loss(self, pred: Array, target: Array, gates: Mapping[str, Array]) -> Array:
        """||r||_1, [C]."""
        return _loss(pred - target, 1.0)

    def residual(self, pred: Array, target: Array, gates: Mapping[str, Array]) -> Array:
        """sign(r), [C, dv]."""
        return _residual(pred - target, 1.0, self.smooth, self.sharpness, eps=1.0)

    def formula(self, gates) -> BiasFormula:
        """As Lp with p = 1."""
        return Lp(p=1.0, smooth=self.smooth, sharpness=self.sharpness).formula(gates)

    def sources(self) -> tuple[str, ...]:
        """As Lp with p = 1."""
        return Lp(p=1.0, smooth=self.smooth).sources()
