"""Delta gradient descent: a step that also removes what the memory holds along its input."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import jax

from miras.array_typing import Array
from miras.config import require
from miras.errors import ConfigError
from miras.optim.base import register
from miras.optim.gd import GD
from miras.parts.formula import Line, times
from miras.parts.part import Condition, RuleView


@register("dgd")
@dataclasses.dataclass(frozen=True, kw_only=True)
class DGD(GD):
    """Gradient descent that also erases along the input. Nested Learning (2512.24695).

        A_t = (alpha_t I - r_t x_t^T x_t) A_{t-1} - eta'_t g_t       x_t: the input of the matrix
        r_t = rho_t / max(1, |x_t|^2)

    Gradient descent whose objective also asks that the token's input maps to 0, so that a step
    depends on what the weights hold along x_t, whatever the loss. rho_t and eta'_t by `form`:

        "gradient"     rho = eta,  eta' = eta                 as the update of HOPE is printed
        "proximal"     rho = eta' = eta / (1 + eta)           arXiv: the closed form for |x| = 1
        "projection"   rho = 1,    eta' = eta                 NeurIPS: I - x^T x, without eta

    The factor I - r x^T x acts on the state after the token before, token by token; only g_t is
    taken at the chunk's snapshot. Under bias `l2` in a matrix g_t has a term k^T k W of its own, so
    the memory is erased along k twice, as printed.

    The sources leave open, and this class decides:

    - What x is in a memory of several matrices: the input that each matrix has for the key k_t, at
      the weights at which g_t is taken. Vectors, such as biases, are not erased.
    - Inputs longer than 1, such as hidden layers have: the papers assume |x| = 1. Here x is divided
      by max(1, |x|) in the erasing term, so that I - r x^T x never enlarges a weight.

    Attributes:
        form: see above.
    """

    erases: ClassVar[bool] = True
    takes_terms: ClassVar[bool] = False  # of several erasures the order would count

    form: Literal["gradient", "proximal", "projection"] = "gradient"

    def validate(self) -> None:
        """Check ranges."""
        super().validate()
        name = type(self).__name__
        require(
            self.granularity == "head",
            f"{name}.granularity={self.granularity!r} must be 'head': one rate scales I - x^T x.",
        )
        require(not self.averaged, f"{name}.averaged=True: averages are of gradients only; use gd.")

    def conditions(self, rule: RuleView) -> Iterator[Condition]:
        """Weights that are linear in the past, and are written along gradients."""
        yield from super().conditions(rule)
        yield Condition(
            rule.retention.linked is None,
            f"algorithm {self.kind!r} multiplies the weights by I - r x^T x, which retention "
            f"{rule.retention.kind!r} keeps in another geometry",
            "use retention 'none' or 'l2', or algorithm 'gd'",
        )
        yield Condition(
            _has_matrices(rule.memory),
            f"algorithm {self.kind!r} erases along the input of a matrix, which memory "
            f"{rule.memory.kind!r} has none of",
            "use memory 'matrix' or 'mlp', or algorithm 'gd'",
        )
        yield Condition(
            not rule.memory.associates,
            f"algorithm {self.kind!r} erases along a gradient's input, which memory "
            f"{rule.memory.kind!r} with these writes has none of",
            "use write='gradient', or algorithm 'gd'",
        )

    def effective(self, gates: dict[str, Array], k: Array) -> dict[str, Array]:
        """eta / (1 + eta) in place of eta for "proximal"."""
        if self.form != "proximal":
            return gates
        return {**gates, "lr": gates["lr"] / (1 + gates["lr"])}

    def erasing_rate(self, gates: Mapping[str, Array]) -> Array:
        """rho_t, from gates as `effective` has them."""
        return gates["lr"] ** 0 if self.form == "projection" else gates["lr"]

    def rate_formula(self, rate: str, k: str) -> tuple[str, tuple[Line, ...]]:
        """eta'_t."""
        del k
        if self.form != "proximal":
            return rate, ()
        return r"\epsilon_t", (Line(r"\epsilon_t", rf"\frac{{{rate}}}{{1 + {rate}}}"),)

    def erasing_formula(self, rate: str, x: str) -> tuple[str, tuple[Line, ...]]:
        """r_t x_t^T x_t, and r_t."""
        rho = "1" if self.form == "projection" else rate or "1"
        line = Line(r"\rho_t", rf"\frac{{{rho}}}{{\max(1, {x} {x}^\top)}}")
        return times(r"\rho_t", rf"{x}^\top {x}"), (line,)

    def sources(self) -> tuple[str, ...]:
        """Nested Learning."""
        return ("Nested Learning, arXiv 2512.24695, delta gradient descent",)


@functools.cache
def _has_matrices(memory: Any) -> bool:
    try:
        weights = jax.eval_shape(lambda: memory.init(jax.random.key(0), 8, 8))
    except ConfigError:  # a memory of other widths
        return True
    return any(leaf.ndim == 2 for leaf in weights.values())
