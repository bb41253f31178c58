"""Gate: an input of a rule that each token has a value of.

Parts declare gates; `miras.scan` takes their values; `miras.layers.gates` builds the projections
that make them from the token. Nothing here projects anything. The engine finds a gate by its role,
never by its name.
"""

import dataclasses
import math
from typing import Literal

import numpy as np

Range = Literal["bounded", "log_unit", "positive", "real"]
Side = Literal["head", "key", "value", "slot"]
Role = Literal["rate", "update", "decay", "momentum", "weight"]


@dataclasses.dataclass(frozen=True)
class Gate:
    """One per-token input of a rule.

    Attributes:
        name: key in the `gates` dict of `miras.scan`, such as lr, log_decay or threshold.
        value: in natural units (eta, alpha, mu, delta): held where the gate is not given, and
            where a projection starts.
        range: "bounded" is (0, upper); "log_unit" is the log of (0, 1]; "positive" is (0, inf);
            "real" is (-inf, inf).
        learned: whether a layer learns it.
        per_token: whether a layer computes a learned gate from the token; otherwise it learns one
            value per head, or per head and channel.
        upper: end of the range of a bounded gate.
        spread: of a "log_unit" gate: head h starts at 1 - (1 - value) * spread^h.
        side: what it has a value for: "head" is one per head, [B, T, H]; "key", "value" and "slot"
            one per channel of that side of the memory, [B, T, H, D].
        slopes: of a "log_unit" gate: "alibi" gives head h of H the log -2^(-8 (h + 1) / H) instead.
        role: what the engine does with it: "rate" is eta_t, which scales a token's gradients or
            its step; "update" is a second rate, which scales the step where "rate" scales
            gradients; "decay" is log alpha_t, which scales the past; "momentum" is log mu_t;
            "weight" is the weight of a token in a window. None: only its part
            reads it.
        drawn: whether a layer starts the projection of a learned gate as those of keys and values,
            at unit variance around the gate's value, instead of at 0. For gates per channel of
            range "real" that are a vector made of the token, which tells tokens apart.
        symbol: LaTeX of it in `miras.equations`; made of the name if not given.
    """

    name: str
    value: float
    range: Range
    learned: bool
    upper: float = math.inf
    spread: float = 1.0
    side: Side = "head"
    slopes: Literal["spread", "alibi"] = "spread"
    role: Role | None = None
    symbol: str = ""
    per_token: bool = True
    drawn: bool = False

    @property
    def neutral(self) -> float:
        """The value of a token that is not there, in the gate's own units.

        No decay, a rate and a weight of 0; for other gates where they start.
        """
        if self.range == "log_unit" or self.role in ("rate", "update", "weight"):
            return 0.0
        return self.value

    def constant(self, heads: int) -> np.ndarray:
        """The held value per head, [H], in the gate's own units (a log for "log_unit")."""
        if self.slopes == "alibi":
            return -(2.0 ** (-8 * (np.arange(heads) + 1) / heads))
        if self.range == "log_unit":
            return np.log1p((self.value - 1) * self.spread ** np.arange(heads))
        return np.full(heads, self.value)
