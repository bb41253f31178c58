"""Squared-error bias: the delta rule's loss."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp

from miras.array_typing import Array
from miras.bias.base import Bias, register
from miras.parts.formula import BiasFormula


@register("l2")
@dataclasses.dataclass(frozen=True)
class L2Loss(Bias):
    """loss = 1/2 ||r||^2 with r = pred - v; residual r. MIRAS (2504.13173), table 1."""

    separable: ClassVar[bool] = True
    slope: ClassVar[float | None] = 1.0

    def loss(self, pred: Array, target: Array, gates: Mapping[str, Array]) -> Array:
        """1/2 ||r||^2, [C]."""
        return 0.5 * jnp.sum((pred - target) ** 2, axis=-1)

    def residual(self, pred: Array, target: Array, gates: Mapping[str, Array]) -> Array:
        """r, [C, dv]."""
        return pred - target

    def formula(self, gates) -> BiasFormula:
        """1/2 ||r||^2."""
        return BiasFormula(
            residual=lambda r: r, loss=lambda p, v: rf"\frac{{1}}{{2}} \|{p} - {v}\|_2^2"
        )

    def sources(self) -> tuple[str, ...]:
        """MIRAS."""
        return ("MIRAS, arXiv 2504.13173, table 1",)


L2 = L2Loss  # the name that earlier versions' plugins import
