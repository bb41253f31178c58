"""Slot memory: k slots, each a key and a value, read by softmax."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from miras.array_typing import Array, Weights
from miras.config import require
from miras.memory.base import Memory, Reader, register
from miras.parts.formula import Line, MemoryFormula, number
from miras.parts.gate import Gate, Side
from miras.parts.part import Condition, RuleView


@register("slots")
@dataclasses.dataclass(frozen=True)
class Slots(Memory):
    """M(W, x) = softmax(x @ w1) @ w2: w1 [dk, count] the slots' keys, w2 [count, dv] their values.

    With write="gate" the token says by a gate phi_t how much of it each slot takes,

        w1_t = w1_{t-1} diag(alpha_t) + eta_t k_t^T phi_t
        w2_t = diag(alpha_t) w2_{t-1} + eta_t phi_t^T v_t

    as ABC (2110.02488); with write="tied" phi_t = 1 - alpha_t per slot, as GSA (2409.07146),
    equation 4. With write="gradient" it is a two-layer memory like any other.

    Attributes:
        count: slots, >= 1.
        write: see above; "gate" and "tied" go with a dot bias, "tied" with l2 retention of
            granularity="slot".
        scale: of the scores before the softmax; > 0.
    """

    count: int = 16
    write: Literal["gate", "tied", "gradient"] = "gate"
    scale: float = 1.0

    def validate(self) -> None:
        """Check ranges."""
        require(self.count >= 1, f"Slots.count={self.count} must be at least 1.")
        require(self.scale > 0, f"Slots.scale={self.scale} must be positive.")

    def init(self, key: jax.Array, dk: int, dv: int) -> Weights:
        """Random keys, so that slots differ, and empty values."""
        return {
            "w1": jax.random.normal(key, (dk, self.count), jnp.float32),
            "w2": jnp.zeros((self.count, dv), jnp.float32),
        }

    def sides(self, name: str) -> tuple[Side | None, ...]:
        """Both have a dimension of slots."""
        return ("key", "slot") if name == "w1" else ("slot", "value")

    @property
    def slots(self) -> int:
        """`count`."""
        return self.count

    @property
    def associates(self) -> bool:
        """Unless slots are learned by gradients."""
        return self.write != "gradient"

    def conditions(self, rule: RuleView) -> Iterator[Condition]:
        """Of slots that the token chooses: a dot bias, one write a token."""
        yield from super().conditions(rule)
        algorithm, known = rule.algorithm, f"memory 'slots' with write={self.write!r}"
        if self.associates:
            yield Condition(
                rule.bias.slope == 0 and algorithm.lr_at == "gradient" and algorithm.window == 1,
                f"{known} is written by association, as a dot bias does, each with its lr",
                "use bias 'dot' with gd or momentum, or write='gradient'",
            )
            yield Condition(
                rule.order == "learn_first" and algorithm.terms == 1,
                f"{known} is written once a token, without a look at its state",
                "use order='learn_first' and algorithm 'gd', or write='gradient'",
            )
        if self.write == "tied":
            yield Condition(
                any(side == "slot" for _, side in rule.retention.decays),
                f"{known} writes what its slots forget, but retention {rule.retention.kind!r} here "
                "has no decay per slot",
                "use retention 'l2' with granularity='slot'",
            )

    def gates(self) -> tuple[Gate, ...]:
        """phi_t in (0, 1) where the token chooses its slots."""
        if self.write != "gate":
            return ()
        return (
            Gate(
                "slot", 1 / (1 + self.count), "bounded", True, upper=1.0, side="slot", symbol=r"\pi"
            ),
        )

    def associations(
        self, k: Array, v: Array, gates: Mapping[str, Array], decays: Mapping[Side, Array]
    ) -> dict[str, tuple[Array, Array]]:
        """(k, phi) and (phi, v)."""
        phi = gates["slot"] if self.write == "gate" else -jnp.expm1(decays["slot"])
        return {"w1": (k, phi), "w2": (phi, v)}

    def apply(self, read: Reader, x: Array) -> Array:
        """Softmax over slots."""
        scores = self.scale * read.linear("w1", x)
        return read.linear("w2", jax.nn.softmax(scores, axis=-1))

    def formula(self, gates) -> MemoryFormula:
        """Softmax over slots, and what a token writes into them."""
        scores = "x W_1" if self.scale == 1 else f"{number(self.scale)} x W_1"
        phi = gates.get("slot", "") if self.write == "gate" else f"(1 - {gates.get('log_decay')})"
        count = self.count
        writes = None
        if self.write != "gradient":
            writes = lambda k, v: rf"({k}^\top {phi}, \ {phi}^\top {v})"  # noqa: E731
        return MemoryFormula(
            answer=lambda W, x: f"M({W}, {x})",
            writes=writes,
            lines=(Line("M(W, x)", rf"\mathrm{{softmax}}({scores}) W_2"),),
            where=(
                Line("W_1", rf"\mathbb{{R}}^{{d_k \times {count}}}", r"\in", "keys of the slots"),
                Line("W_2", rf"\mathbb{{R}}^{{{count} \times d_v}}", r"\in", "their values"),
            ),
        )

    def sources(self) -> tuple[str, ...]:
        """ABC, GSA, or none for slots that are learned by gradients."""
        return {
            "gate": ("ABC, arXiv 2110.02488",),
            "tied": ("GSA, arXiv 2409.07146, eq. 4",),
            "gradient": (),
        }[self.write]
