"""l_p biases: Moneta's loss, and the value-less l_1."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from miras.bias.base import Bias, register
from miras.config import require
from miras.norms import power
from miras.typing import Array


@dataclasses.dataclass(frozen=True)
class _Lp(Bias):
    """The family; members have the fields `smooth`, `sharpness` and `eps`, and an exponent."""

    smooth: ClassVar[bool]
    sharpness: ClassVar[float]
    eps: ClassVar[float]

    def validate(self) -> None:
        """Check ranges."""
        require(self.exponent >= 1, f"Lp.p={self.exponent} must be at least 1.")
        require(self.sharpness > 0, f"Lp.sharpness={self.sharpness} must be positive.")
        require(self.eps > 0, f"Lp.eps={self.eps} must be positive.")

    @property
    def exponent(self) -> float:
        """The p of the norm."""
        raise NotImplementedError

    def loss(self, pred: Array, target: Array, threshold: Array | None) -> Array:
        """||r||_p^p / p, [C]."""
        p = self.exponent
        return jnp.sum(power(jnp.abs(pred - target), p), axis=-1) / p

    def residual(self, pred: Array, target: Array, threshold: Array | None) -> Array:
        """sign(r) |r|^(p-1), [C, dv]; smoothed for p < 2."""
        r, p = pred - target, self.exponent
        if p >= 2:
            return r * power(jnp.abs(r), p - 2)
        if self.smooth:
            return jnp.tanh(self.sharpness * r) * (r * r + self.eps) ** ((p - 1) / 2)
        return jnp.sign(r) * power(jnp.abs(r), p - 1)


@register("lp")
@dataclasses.dataclass(frozen=True)
class Lp(_Lp):
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
    smooth: bool = True  # pyright: ignore[reportIncompatibleVariableOverride]
    sharpness: float = 10.0  # pyright: ignore[reportIncompatibleVariableOverride]
    eps: float = 1e-6  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def exponent(self) -> float:
        """P."""
        return self.p


@register("l1")
@dataclasses.dataclass(frozen=True)
class L1(_Lp):
    """loss = ||r||_1; residual sign(r): value-less memory. MIRAS (2504.13173), equations 10-12.

    Attributes:
        smooth: tanh(sharpness r) for sign(r).
        sharpness: nu of the tanh.
    """

    eps: ClassVar[float] = 1e-6
    smooth: bool = True  # pyright: ignore[reportIncompatibleVariableOverride]
    sharpness: float = 10.0  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def exponent(self) -> float:
        """1."""
        return 1.0
