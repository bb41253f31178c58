"""Association: what a token writes, and the buffers from which parts make it.

A part may map the keys and values of tokens by `associate`: by gates, as in Gated DeltaNet-2, and
by buffers that it carries from token to token, as the preconditioned delta rules do.
"""

from typing import NamedTuple, Protocol

from miras.array_typing import Array


class Association(NamedTuple):
    """The error of what the memory answers to `k`, as to `v`, is written along `k_write`.

    Attributes:
        k: [C, dk], or [C, R, dk] with R associations a token.
        k_write: as k; None for k.
        v: [C, dv], or [C, R, dv].
        scale: [C, R], which multiplies the token's rate; None for 1.
    """

    k: Array
    k_write: Array | None
    v: Array
    scale: Array | None = None

    @property
    def along(self) -> Array:
        """The key that is written along, as k."""
        return self.k if self.k_write is None else self.k_write


class Buffers(Protocol):
    """The buffers of a rule over C tokens, as `associate` computes with them.

    A part calls one method for each buffer that it declares. The engine computes the buffer at all
    C tokens at once, and carries its last value to the next tokens. A buffer is 0 before a
    segment's first token; masked tokens leave it as it is.
    """

    def decayed_sum(self, name: str, log_decay: Array | None, x: Array) -> Array:
        """B_t = exp(log_decay_t) B_{t-1} + x_t at each token, its own included.

        Args:
            name: of the buffer [D].
            log_decay: [C], at most 0; None for 0.
            x: [C, D].

        Returns:
            [C, D].
        """
        ...

    def previous(self, name: str, x: Array) -> Array:
        """x of the token before each, and 0 where there is none.

        Args:
            name: of the buffer [...].
            x: [C, ...].

        Returns:
            [C, ...].
        """
        ...
