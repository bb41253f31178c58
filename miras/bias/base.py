"""The contract of an attentional bias: what the memory minimises at each token."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from miras.array_typing import Array
from miras.config import Config
from miras.config.registry import Registry
from miras.parts.formula import BiasFormula, Symbols
from miras.parts.gate import Gate


@dataclasses.dataclass(frozen=True)
class Bias(Config):
    """Attentional bias: a loss between what the memory answers to a key and the key's value.

    To add one: subclass with frozen fields, implement `loss`, decorate with
    `@miras.bias.register("kind")`. Override `residual` where the closed form is known, or where
    the rule's direction is not the gradient of one loss (Yaad's Huber mixture). `formula` and
    `sources` write it for `miras describe`. `miras.testing.check_bias` checks the whole.
    """

    registry: ClassVar[Registry["Bias"]] = Registry("bias", "miras.bias")
    slope: ClassVar[float | None] = None  # a where the residual is a pred - v: closed forms exist

    def loss(self, pred: Array, target: Array, threshold: Array | None) -> Array:
        """Loss per token: pred and target [C, dv], threshold [C] or None, to [C]."""
        raise NotImplementedError

    def residual(self, pred: Array, target: Array, threshold: Array | None) -> Array:
        """D loss / d pred, [C, dv]; differentiable, since the outer loss sees through it."""
        return jax.grad(lambda p: jnp.sum(self.loss(p, target, threshold)))(pred)

    def gates(self) -> tuple[Gate, ...]:
        """The gates that the loss consumes."""
        return ()

    def formula(self, gates: Symbols) -> BiasFormula | None:
        """What `miras.equations` writes of it; None where only the member's name is known."""
        del gates
        return None

    def sources(self) -> tuple[str, ...]:
        """Papers of the formula, each with its equation, table or section."""
        return ()


register = Bias.registry.register
