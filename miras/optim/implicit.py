"""Implicit gradient descent: Longhorn's proximal step in closed form."""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import jax.numpy as jnp

from miras.array_typing import Array
from miras.optim.base import register
from miras.optim.gd import GD
from miras.parts.formula import Line, raised
from miras.parts.part import Condition, RuleView


@register("implicit")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Implicit(GD):
    """The minimiser of ||W - W_{t-1}||^2 / 2 + eta_t ||k_t W - v_t||^2 / 2: a rescaled GD step.

        W_t = W_{t-1} - eta_t / (1 + eta_t k_t.k_t) k_t^T (k_t W_{t-1} - v_t)

    Longhorn (2407.14207), theorem 3.1, with eta_t per value channel under granularity="value", and
    sum_i eta_ti k_ti^2 for eta_t k_t.k_t under "key", where the distance to W_{t-1} is weighed by
    1 / eta_ti. For a linear memory with l2 bias, where the step has this form; stable for any
    eta_t > 0.
    """

    takes_terms: ClassVar[bool] = False  # the minimiser over several terms is another

    def conditions(self, rule: RuleView) -> Iterator[Condition]:
        """Least squares in a linear memory."""
        yield self._needs_least_squares(rule)
        yield from super().conditions(rule)

    def effective(self, gates: dict[str, Array], k: Array) -> dict[str, Array]:
        """eta_t / (1 + eta_t k.k) in place of eta_t."""
        lr = gates["lr"]
        if self.granularity == "key":
            return {**gates, "lr": lr / (1 + jnp.sum(lr * k * k, axis=-1, keepdims=True))}
        square = jnp.sum(k * k, axis=-1)
        if lr.ndim > square.ndim:
            square = square[..., None]
        return {**gates, "lr": lr / (1 + lr * square)}

    def rate_formula(self, rate: str, k: str) -> tuple[str, tuple[Line, ...]]:
        """epsilon_t."""
        square = rf"{rate} {k} {raised(k)}"
        when = ""
        if self.granularity == "key":
            square = rf"({rate} \odot {k}) {raised(k)}"
        if self.granularity == "value":
            when = "one per value channel"
        return r"\epsilon_t", (Line(r"\epsilon_t", rf"\frac{{{rate}}}{{1 + {square}}}", when=when),)

    def sources(self) -> tuple[str, ...]:
        """Longhorn."""
        return ("Longhorn, arXiv 2407.14207, theorem 3.1",)
