"""P_t q_t: queries projected onto the keys of the tokens so far; `tnt` has the equation."""

import dataclasses
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from miras.array_typing import Array
from miras.backends.base import Alignment, ScanInputs
from miras.bias import similarity
from miras.engine.state import State, initial_state, made_by
from miras.memory import DEFAULT as MATRIX
from miras.optim import unit_steps
from miras.retention import DEFAULT as NOTHING_FORGOTTEN
from miras.rule.options import ScanOptions
from miras.rule.rule import Rule
from miras.sequence.scan import scan_with_loss

if TYPE_CHECKING:
    from miras.layers.keys import Associations

# P_t = P_{t-1} + k^T k, a sum that does not depend on the chunk.
PROJECTION = Rule(
    memory=MATRIX,
    bias=similarity(),
    retention=NOTHING_FORGOTTEN,
    algorithm=unit_steps(),
)


@dataclasses.dataclass(frozen=True)
class QueryProjection:
    """P_t q_t with P_t = sum_r k_r k_r^T / |k_r|^2 over the tokens of a segment up to t.

    Attributes:
        heads: H.
        width: D, of a head.
        options: of the scan; the chunk changes no result.
    """

    heads: int
    width: int
    options: ScanOptions

    def init_state(self, batch: int, dtype) -> State:
        """P = 0 of each head; `dtype` is that of the tokens."""
        kept = jnp.promote_types(jnp.float32, dtype)
        made = made_by(PROJECTION, self.options.chunk, False)
        widths = self.width, self.width
        return initial_state(PROJECTION, self._zeros(), batch, *widths, dtype=kept, made=made)

    def __call__(
        self,
        streams: "Associations",
        segment_ids: Array | None,
        mask: Array | None,
        state: State | None,
        alignment: Alignment,
    ) -> tuple[Array, State]:
        """P_t q_t, [B, T, H, D], and the state after the last token."""
        k = _unit(streams.k if streams.k_write is None else streams.k_write)
        inputs = ScanInputs(
            self._zeros(), streams.q, k, k, state=state, segment_ids=segment_ids, mask=mask
        )
        y, after, _ = scan_with_loss(PROJECTION, inputs, self.options, alignment)
        return y, after

    def _zeros(self) -> dict[str, Array]:
        return {"w1": jnp.zeros((self.heads, self.width, self.width))}


def _unit(k: Array) -> Array:
    """k / |k| over the last axis, 0 for 0; without the eps of a norm, which P_t has not."""
    x = k.astype(jnp.promote_types(jnp.float32, k.dtype))
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    some = square > 0
    return jnp.where(some, x * jax.lax.rsqrt(jnp.where(some, square, 1)), 0).astype(k.dtype)
