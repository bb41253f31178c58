"""Dot-product bias: the similarity that Hebbian rules and linear attention maximise."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp

from miras.array_typing import Array
from miras.bias.base import Bias, register
from miras.parts.formula import BiasFormula


@register("dot")
@dataclasses.dataclass(frozen=True)
class Dot(Bias):
    """loss = -<pred, v>; residual -v. MIRAS (2504.13173), table 1."""

    separable: ClassVar[bool] = True
    slope: ClassVar[float | None] = 0.0

    def loss(self, pred: Array, target: Array, gates: Mapping[str, Array]) -> Array:
        """-<pred, v>, [C]."""
        return -jnp.sum(pred * target, axis=-1)

    def residual(self, pred: Array, target: Array, gates: Mapping[str, Array]) -> Array:
        """-v, [C, dv]."""
        return -target

    def formula(self, gates) -> BiasFormula:
        """-<pred, v>."""
        return BiasFormula(
            residual=lambda r: "- v_t", loss=lambda p, v: rf"(-\langle {p}, {v} \rangle)"
        )

    def sources(self) -> tuple[str, ...]:
        """MIRAS."""
        return ("MIRAS, arXiv 2504.13173, table 1",)
