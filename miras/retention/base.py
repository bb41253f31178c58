"""The contract of a retention gate: how the past is kept, and on which geometry."""

import dataclasses
from typing import ClassVar, Literal

from miras.config import Config, require
from miras.gate import Gate
from miras.registry import Registry
from miras.typing import Leaf

LinkEvery = Literal["chunk", "token"]


@dataclasses.dataclass(frozen=True)
class Retention(Config):
    """Retention gate: A_t = alpha_t A_{t-1} + S_t in the dual space, W_t = link(A_t) in the primal.

    To add one: subclass with frozen fields, say by `gates` which gates it needs, implement `link`
    and `unlink` if the map is not the identity (and then say by `linked` when it fires), decorate
    with `@miras.retention.register("kind")`. Both maps see one weight of one head,
    [in, out] or [out].

    A map that is not the identity has a field `link_every`. "token" reads W_t = link(A_t) after
    every token: the definition. "chunk" is what the papers train with: the link fires once a chunk
    and the reads in between follow the linear recursion W_t = alpha_t W_{t-1} + S_t from there. It
    fires on the chunk's last token, or on its first where the member sets `lag = True`: then that
    token takes one true step and the chunk's other gradients are taken after it. With chunk = 1
    both are the definition.
    """

    registry: ClassVar[Registry["Retention"]] = Registry("retention")
    lag: ClassVar[bool] = False

    @property
    def linked(self) -> LinkEvery | None:
        """When the link fires; None where it is the identity."""
        return None

    def gates(self) -> tuple[Gate, ...]:
        """The gates consumed; without a `log_decay` nothing is forgotten."""
        return ()

    def link(self, A: Leaf) -> Leaf:
        """The mirror map, dual to primal."""
        return A

    def unlink(self, W: Leaf) -> Leaf:
        """The initial dual state of a primal weight: link(unlink(W)) = W."""
        return W

    def constrain(self, W: Leaf) -> Leaf:
        """A smooth map from any array to a primal weight in the link's range."""
        return W


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decaying(Retention):
    """A retention whose linear part is a decay alpha_t in (0, 1].

    Attributes:
        decay: alpha where it is not given per token, and where a learned one starts.
        spread: head h holds 1 - (1 - decay) * spread^h; RetNet's heads are 31/32 and 0.5.
        data_dependent: whether a layer computes alpha_t from the token.
    """

    decay: float = 0.99
    spread: float = 1.0
    data_dependent: bool = True

    def validate(self) -> None:
        """Check ranges."""
        name = type(self).__name__
        require(0 < self.decay <= 1, f"{name}.decay={self.decay} must be in (0, 1].")
        require(0 < self.spread <= 1, f"{name}.spread={self.spread} must be in (0, 1].")

    def gates(self) -> tuple[Gate, ...]:
        """Log alpha_t."""
        return (Gate("log_decay", self.decay, "log_unit", self.data_dependent, spread=self.spread),)


register = Retention.registry.register
