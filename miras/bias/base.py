"""The contract of an attentional bias: what the memory minimises at each token."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from miras.array_typing import Array
from miras.config.registry import Registry
from miras.parts.formula import BiasFormula, Symbols
from miras.parts.old_signatures import adapt
from miras.parts.part import Part


@dataclasses.dataclass(frozen=True)
class Bias(Part):
    """Attentional bias: a loss between what the memory answers to a key and the key's value.

    To add one: subclass with frozen fields, implement `loss`, decorate with
    `@miras.bias.register("kind")`. Override `residual` where the closed form is known, or where
    the rule's direction is not the gradient of one loss (Yaad's Huber mixture). Both are given the
    gates that `gates` declares, by name. `formula` and `sources` write it for `miras describe`.
    `miras.testing.check_bias` checks the whole.

    Attributes:
        slope: a where the residual is a pred - v, for which closed forms exist; None elsewhere.
    """

    registry: ClassVar[Registry["Bias"]] = Registry("bias", "miras.bias")
    slope: ClassVar[float | None] = None

    def __init_subclass__(cls, **keywords: Any):
        super().__init_subclass__(**keywords)
        for method in ("loss", "residual"):
            adapt(cls, method, "pred, target, threshold", "pred, target, gates", _with_threshold)

    def loss(self, pred: Array, target: Array, gates: Mapping[str, Array]) -> Array:
        """Loss per token, [C].

        Args:
            pred: what the memory answers, [C, dv].
            target: values, [C, dv].
            gates: the bias's own gates by name, [C] or [C, D].
        """
        raise NotImplementedError

    def residual(self, pred: Array, target: Array, gates: Mapping[str, Array]) -> Array:
        """d loss / d pred, [C, dv]; differentiable, since the outer loss sees through it."""
        return jax.grad(lambda p: jnp.sum(self.loss(p, target, gates)))(pred)

    def formula(self, gates: Symbols) -> BiasFormula | None:
        """What `miras.equations` writes of it; None where only the member's name is known."""
        del gates
        return None


def _with_threshold(bias: Bias, pred: Array, target: Array, gates: Mapping[str, Array]) -> tuple:
    """The arguments of `loss` and `residual` in version 0.1."""
    del bias
    return pred, target, gates.get("threshold")


register = Bias.registry.register
