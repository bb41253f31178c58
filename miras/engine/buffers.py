"""Buffers of keys and values that parts carry from token to token, over a run of tokens."""

import dataclasses

import jax.numpy as jnp

from miras.array_typing import Array
from miras.optim.coefficients import products
from miras.parts.association import Buffers


@dataclasses.dataclass
class ChunkBuffers(Buffers):
    """The buffers over C tokens at once.

    Attributes:
        before: of the state before the first token, by name [...].
        write: [C], 1 or 0.
        after: filled on the way: each buffer after the last token.
    """

    before: dict[str, Array]
    write: Array
    after: dict[str, Array] = dataclasses.field(default_factory=dict)

    def decayed_sum(self, name: str, log_decay: Array | None, x: Array) -> Array:
        """L x + beta B_0, with L the products of decays between two tokens."""
        if log_decay is not None:
            log_decay = jnp.where(self.write > 0, log_decay, 0.0)
        between, since_start = products(log_decay, x.shape[0], x.dtype)
        written = x * self.write[:, None]
        total = between @ written + since_start[:, None] * self.before[name][None, :]
        self.after[name] = _at_end(total)
        return total

    def previous(self, name: str, x: Array) -> Array:
        """x of the last written token before each; the carried one where there is none."""
        if x.ndim == 3:  # one by one, as kernels do not reshape matrices to rows
            each = [self._previous(x[:, j], self.before[name][j]) for j in range(x.shape[1])]
            found, ends = zip(*each)
            self.after[name] = jnp.stack(ends)
            return jnp.stack(found, axis=1)
        found, self.after[name] = self._previous(x, self.before[name])
        return found

    def _previous(self, x: Array, start: Array) -> tuple[Array, Array]:
        """x [C, D] of the token before each, and of the last one [D]."""
        count = rank(self.write)
        earlier = count - self.write  # written tokens before each
        ranked = jnp.where(self.write > 0, count, -1.0)
        pick = (ranked[None, :] == earlier[:, None]).astype(x.dtype)
        found = pick @ x + jnp.where(earlier[:, None] == 0, start[None, :], 0.0)
        end = (ranked == count[-1]).astype(x.dtype) @ x + jnp.where(count[-1] == 0, start, 0.0)
        return found, end


def rank(weight: Array) -> Array:
    """Inclusive count of written tokens up to each token; weight > 0 marks a written token."""
    size = weight.shape[0]
    lower = jnp.arange(size)[:, None] >= jnp.arange(size)[None, :]
    return lower.astype(weight.dtype) @ (weight > 0).astype(weight.dtype)


def _at_end(x: Array) -> Array:
    """The last row, as a masked sum, since Triton has no static slice."""
    size = x.shape[0]
    return (jnp.arange(size) == size - 1).astype(x.dtype) @ x
