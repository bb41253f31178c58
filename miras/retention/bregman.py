"""Bregman retention: mirror descent in the geometry of a given potential."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from miras.array_typing import Leaf
from miras.config import unknown
from miras.errors import ConfigError
from miras.parts.formula import RetentionFormula
from miras.retention.base import Decaying, LinkEvery, register


class Potential(NamedTuple):
    """A strictly convex F by the slope of its coordinates.

    Attributes:
        slope: f' on the weights' range.
        inverse: (f')^-1, from any number to the range.
    """

    slope: Callable[[Leaf], Leaf]
    inverse: Callable[[Leaf], Leaf]


POTENTIALS: dict[str, Potential] = {}


def register_potential(name: str, potential: Potential) -> None:
    """Make a potential known to `Bregman(potential=name)`.

    Raises:
        ConfigError: when the name is taken.
    """
    if name in POTENTIALS:
        raise ConfigError(f"potential {name!r} is already registered; choose another name.")
    POTENTIALS[name] = potential


def _inside(W: Leaf, low: float, high: float) -> Leaf:
    """W held a rounding error away from the ends of its range, where f' is infinite."""
    gap = 4 * jnp.finfo(W.dtype).eps
    return jnp.clip(W, low + gap, high - gap)


def _logit(W: Leaf) -> Leaf:
    W = _inside(W, 0.0, 1.0)
    return jnp.log(W) - jnp.log1p(-W)


register_potential("sigmoid", Potential(_logit, jax.nn.sigmoid))
register_potential("tanh", Potential(lambda W: jnp.arctanh(_inside(W, -1.0, 1.0)), jnp.tanh))


@register("bregman")
@dataclasses.dataclass(frozen=True)
class Bregman(Decaying):
    """W_t = (f')^-1(alpha_t f'(W_{t-1}) + U_t), coordinate by coordinate. MIRAS, variant 5.

    The dual state is A = f'(W). Bounded ranges come of it: f' = logit keeps weights in (0, 1),
    f' = artanh in (-1, 1).

    Attributes:
        potential: "sigmoid" (f' = logit), "tanh" (f' = artanh), or a name given to
            `miras.retention.register_potential`.
        link_every: see `Retention`.
    """

    potential: str = "tanh"
    link_every: LinkEvery = "token"

    def validate(self) -> None:
        """Check ranges and the name."""
        super().validate()
        if self.potential not in POTENTIALS:
            raise unknown("potential", self.potential, POTENTIALS)

    @property
    def linked(self) -> LinkEvery:
        """`link_every`."""
        return self.link_every

    def link(self, A: Leaf) -> Leaf:
        """(f')^-1."""
        return POTENTIALS[self.potential].inverse(A)

    def unlink(self, W: Leaf) -> Leaf:
        """f'."""
        return POTENTIALS[self.potential].slope(W)

    def constrain(self, W: Leaf) -> Leaf:
        """Any array as the dual start."""
        return self.link(W)

    def formula(self, gates) -> RetentionFormula:
        """(f')^-1 by its name."""
        named = {
            "sigmoid": (r"\mathrm{sigmoid}", r"\mathrm{logit}"),
            "tanh": (r"\tanh", r"\mathrm{artanh}"),
        }
        name = self.potential.replace("_", " ")
        plain = (rf"(f')_{{\text{{{name}}}}}^{{-1}}", rf"f'_{{\text{{{name}}}}}")
        forward, back = named.get(self.potential, plain)
        return RetentionFormula(link=lambda A: f"{forward}({A})", start=lambda W: f"{back}({W})")

    def sources(self) -> tuple[str, ...]:
        """MIRAS."""
        return ("MIRAS, arXiv 2504.13173, variant 5",)
