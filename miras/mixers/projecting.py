"""Projecting: which projections of a token are memories, and their chunk."""

import dataclasses
from typing import Literal

from miras.config import Config, require

Projection = Literal["k", "v", "eta", "alpha"]
PROJECTIONS: tuple[Projection, ...] = ("k", "v", "eta", "alpha")


@dataclasses.dataclass(frozen=True)
class Projecting(Config):
    """The options of memories that project; see `miras.mixers.self_modifying`.

    Attributes:
        projections_chunk: tokens that share a snapshot of the memories other than M_mem, a multiple
            of the chunk; None for the chunk.
        static: which of k, v, eta and alpha are static projections of x_t instead, as in a layer
            with one memory.
        self_values: whether each memory's target is its own answer to v_t, vhat_t; else it is v_t.
            With all four static and without self-made values this is the layer of the rule.
    """

    projections_chunk: int | None = None
    static: tuple[Projection, ...] = ()
    self_values: bool = True

    def validate(self) -> None:
        """Check ranges."""
        require(
            self.projections_chunk is None or self.projections_chunk >= 1,
            f"self_modifying.projections_chunk={self.projections_chunk} must be at least 1, or "
            "none for the chunk.",
        )

    @property
    def memories(self) -> tuple[Projection, ...]:
        """The projections that are memories."""
        return tuple(name for name in PROJECTIONS if name not in self.static)

    def span(self, chunk: int) -> int:
        """The chunk of the projections."""
        return self.projections_chunk or chunk
