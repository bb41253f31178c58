"""The contract of a retention gate: how the past is kept, and on which geometry."""

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from miras.array_typing import Array, Leaf
from miras.config import added, require
from miras.config.registry import Registry
from miras.optim.coefficients import MIN_LOG
from miras.parts.formula import RetentionFormula, Symbols
from miras.parts.gate import Gate, Side
from miras.parts.part import Condition, Part, RuleView

LinkEvery = Literal["chunk", "token"]
Granularity = Literal["head", "key", "value", "key_value", "slot"]


@dataclasses.dataclass(frozen=True)
class Retention(Part):
    """Retention gate: how A_t comes of alpha_t A_{t-1} + U_t, and W_t of A_t.

    Three geometries:

    - linear: W_t = A_t = alpha_t A_{t-1} + U_t. Nothing to implement.
    - dual (mirror descent): A_t as above, W_t = link(A_t). Implement `link`, `unlink` and, so that
      any learned start is legal, `constrain`.
    - proximal: W_t = prox(alpha_t W_{t-1} + U_t, W_{t-1}), the state is the weight itself. Set
      `proximal` to True and implement `prox`.

    To add one: subclass with frozen fields, say by `gates` which gates it needs, implement the
    above and, unless linear, `linked`, decorate with `@miras.retention.register("kind")`. All maps
    see one weight of one head, [in, out] or [out]. `formula` and `sources` write it for `miras
    describe`. `miras.testing.check_retention` checks the whole.

    A geometry that is not linear has a field `link_every`. "token" applies the map after every
    token: the definition. "chunk" is what the papers train with: the map fires once a chunk and the
    reads in between follow the linear recursion W_t = alpha_t W_{t-1} + U_t from there. It fires on
    the chunk's last token, or on its first where the member sets `lag = True`: then that token
    takes one true step and the chunk's other gradients are taken after it. With chunk = 1 both are
    the definition.

    `effective` and `prox` are given the gates of the whole rule by name, the retention's own and
    `lr`, which a retention that `uses_rate` computes its own from.

    Attributes:
        lag: see above.
        proximal: see above.
        uses_rate: whether `effective` computes with the rate `lr`, one per head.
    """

    registry: ClassVar[Registry["Retention"]] = Registry("retention", "miras.retention")
    lag: ClassVar[bool] = False
    proximal: ClassVar[bool] = False

    def validate(self) -> None:
        """Check that a log decay has its role."""
        for gate in self.gates():
            require(
                gate.role == "decay" or not gate.name.startswith("log_decay"),
                f"gate {gate.name!r} of {type(self).__name__} has role={gate.role!r}, with which "
                "nothing decays: use role='decay', or another name.",
            )

    @property
    def linked(self) -> LinkEvery | None:
        """When the link or the proximal map fires; None where the geometry is linear."""
        return None

    @property
    def starts_at_zero(self) -> bool:
        """Whether weights may start at 0; False where 0 stays 0 or the map has no slope there."""
        return True

    @property
    def uses_rate(self) -> bool:
        """Whether `effective` computes with the algorithm's rate `lr`, one per head."""
        return False

    @property
    def decays(self) -> tuple[tuple[str, Side], ...]:
        """(name, side) of the effective gates that are log decays; without any nothing decays."""
        return tuple((gate.name, gate.side) for gate in self.gates() if gate.role == "decay")

    @property
    def min_log_decay(self) -> float:
        """Log decays per channel are held above it."""
        return MIN_LOG

    @property
    def keeps_all(self) -> bool:
        """Whether W_t = W_{t-1} + U_t: nothing is forgotten and nothing mapped."""
        return self.linked is None and not self.gates()

    def conditions(self, rule: RuleView) -> Iterator[Condition]:
        """One rate per head where it is used, and channels for decays per channel to act on."""
        if self.uses_rate:
            yield self._one_rate(rule)
        known = rule.memory.channel_sides
        sides = " or ".join(f"granularity={side!r}" for side in ("head", *sorted(known)))
        for gate in self.gates():
            if gate.role == "decay":
                yield Condition(
                    gate.side == "head" or gate.side in known,
                    f"{self.kind}.granularity={gate.side!r} decays {gate.side} channels, which "
                    f"memory {rule.memory.kind!r} has none of",
                    f"use {sides}",
                )
        yield from super().conditions(rule)

    def _one_rate(self, rule: RuleView) -> Condition:
        algorithm = rule.algorithm
        return Condition(
            algorithm.granularity == "head",
            f"{algorithm.kind}.granularity={algorithm.granularity!r} gives each channel an lr of "
            f"its own, but retention {self.kind!r} is computed from one lr per head",
            "use granularity='head'",
        )

    def effective(self, gates: dict[str, Array]) -> dict[str, Array]:
        """The gates as the linear recursion uses them, and further ones for `prox`.

        Args:
            gates: of the whole rule by name, [..., D] per channel and [...] else.

        Returns:
            All of them, the rate and the decays as the recursion uses them.
        """
        return gates

    def link(self, A: Leaf) -> Leaf:
        """The mirror map, dual to primal."""
        return A

    def unlink(self, W: Leaf) -> Leaf:
        """The initial dual state of a primal weight: link(unlink(W)) = W."""
        return W

    def constrain(self, W: Leaf) -> Leaf:
        """A smooth map from any array to a primal weight in the map's range."""
        return W

    def prox(self, new: Leaf, old: Leaf, gates: dict[str, Array]) -> Leaf:
        """The proximal map: W_t of alpha_t W_{t-1} + U_t and W_{t-1}; gates are the token's."""
        del old, gates
        return new

    def formula(self, gates: Symbols) -> RetentionFormula | None:
        """What `miras.equations` writes of it beside its decays; None where only its name is known.

        The decays that `gates` declares are written by themselves, as factors on the past.
        """
        del gates
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decaying(Retention):
    """A retention whose linear part is a decay alpha_t in (0, 1].

    Attributes:
        decay: alpha where it is not given per token, and where a learned one starts.
        spread: head h holds 1 - (1 - decay) * spread^h; RetNet's heads are 31/32 and 0.5.
        slopes: "spread", or "alibi": head h of H holds exp(-2^(-8 (h + 1) / H)) whatever `decay`
            (Lightning Attention, 2401.04658).
        data_dependent: whether a layer computes alpha_t from the token.
        per_token: with False, a layer learns one alpha for all tokens instead (the A of Mamba-2,
            2405.21060); needs `data_dependent`.
        granularity: what alpha_t has a value for: each "head"; each "key" channel, so that rows of
            a matrix decay apart (GLA, gate `log_decay` [B, T, H, Dk]); each "value" channel
            (columns, gate `log_decay_value` [B, T, H, Dv]); "key_value" both, as a product; each
            "slot" of a slot memory.
        min_log_decay: log alpha_t per channel is held above it, in [-100, 0). At -100 alpha is
            4e-44, as good as 0: a lower one, minus infinity too, changes the state by no more than
            that part of it.
    """

    decay: float = 0.99
    spread: float = 1.0
    slopes: Literal["spread", "alibi"] = "spread"
    data_dependent: bool = True
    per_token: bool = added(True)
    granularity: Granularity = "head"
    min_log_decay: float = MIN_LOG  # pyright: ignore[reportIncompatibleMethodOverride]

    def validate(self) -> None:
        """Check ranges."""
        super().validate()
        name = type(self).__name__
        require(0 < self.decay <= 1, f"{name}.decay={self.decay} must be in (0, 1].")
        require(
            self.per_token or self.data_dependent,
            f"{name}.per_token=False learns one alpha for all tokens, and data_dependent=False "
            "holds a constant: set one of them to true.",
        )
        require(0 < self.spread <= 1, f"{name}.spread={self.spread} must be in (0, 1].")
        require(
            MIN_LOG <= self.min_log_decay < 0,
            f"{name}.min_log_decay={self.min_log_decay} must be in [{MIN_LOG:g}, 0).",
        )

    def hashed_as(self) -> dict[str, Any]:
        """The clamp of gates per channel was at -5; where there are none it says nothing."""
        nothing = self.granularity == "head" and self.min_log_decay == MIN_LOG
        return {"min_log_decay": -5.0} if nothing else {}

    def gates(self) -> tuple[Gate, ...]:
        """log alpha_t, and that of the value channels."""
        sides = {"key_value": ("key", "value")}.get(self.granularity, (self.granularity,))
        return tuple(
            Gate(
                "log_decay_value" if side == "value" else "log_decay",
                self.decay,
                "log_unit",
                self.data_dependent,
                spread=self.spread,
                slopes=self.slopes,
                per_token=self.per_token,
                side=side,  # pyright: ignore[reportArgumentType]
                role="decay",
                symbol=r"\beta" if side == "value" else r"\alpha",
            )
            for side in sides
        )


register = Retention.registry.register
