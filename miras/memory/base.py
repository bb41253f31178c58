"""The contract of a memory: what is written, and how it is read."""

import dataclasses
from typing import ClassVar, Protocol

import jax

from miras.array_typing import Array, Weights
from miras.config import Config
from miras.config.registry import Registry
from miras.parts.formula import MemoryFormula, Symbols
from miras.parts.gate import Gate, Side


class Reader(Protocol):
    """The only way in which a memory touches its weights.

    The engine swaps readers behind one `apply`: plain weights, weights with taps for gradients, or
    the weights as they stand after each token of a chunk, which are never formed.
    """

    def linear(self, name: str, x: Array) -> Array:
        """X @ W[name]: [C, in] to [C, out]."""
        ...

    def scale(self, name: str, x: Array) -> Array:
        """X * W[name]: [C, out] to [C, out]."""
        ...

    def shift(self, name: str, x: Array) -> Array:
        """X + W[name]: [C, out] to [C, out]."""
        ...

    def fixed(self, name: str) -> Array:
        """A weight that the inner loop reads and never writes."""
        ...


@dataclasses.dataclass(frozen=True)
class Memory(Config):
    """Memory structure M(W, x).

    To add one: subclass with frozen fields, implement `init` and `apply`, decorate with
    `@miras.memory.register("kind")`. Each weight name may be read once in `apply`, through the
    reader only. Names listed by `fixed` stay as they are while the memory learns. `sides` says
    which weights gates per channel act on. `formula` and `sources` write it for `miras describe`.
    `miras.testing.check_memory` checks the whole.
    """

    registry: ClassVar[Registry["Memory"]] = Registry("memory", "miras.memory")

    def init(self, key: jax.Array, dk: int, dv: int) -> Weights:
        """Initial weights of one head, leaves [in, out] or [out], float32.

        Keys are l2-normalised, so a fan-in scaled first layer would see inputs sqrt(dk) too small:
        members scale for inputs of unit norm.
        """
        raise NotImplementedError

    def apply(self, read: Reader, x: Array) -> Array:
        """M(W, x): [C, dk] to [C, dv]."""
        raise NotImplementedError

    @property
    def fixed(self) -> tuple[str, ...]:
        """Names of weights that only the outer loop trains."""
        return ()

    def sides(self, name: str) -> tuple[Side | None, ...]:
        """What each dimension of a weight stands for: "key", "value", "slot", or None.

        A gate per channel acts on the dimension of its side; a weight without that side sees the
        geometric mean over the channels.
        """
        del name
        return (None, None)

    @property
    def is_linear(self) -> bool:
        """Whether M(W, x) = features(x) @ w1, the memory that closed forms are known for."""
        return False

    def features(self, read: Reader, x: Array) -> Array:
        """What the first weight multiplies: x itself but for feature maps."""
        del read
        return x

    def gates(self) -> tuple[Gate, ...]:
        """The gates that the memory consumes; see `associations`."""
        return ()

    def associations(
        self, k: Array, v: Array, gates: dict[str, Array]
    ) -> dict[str, tuple[Array, Array]] | None:
        """What a dot bias writes where that is not its gradient: (key, value) by weight, or None.

        Slots that the token itself chooses (ABC, GSA) are written so: w <- w + eta key^T value.
        """
        del k, v, gates
        return None

    def formula(self, gates: Symbols) -> MemoryFormula | None:
        """What `miras.equations` writes of M; None where only the member's name is known."""
        del gates
        return None

    def sources(self) -> tuple[str, ...]:
        """Papers of the formula, each with its equation, table or section."""
        return ()


register = Memory.registry.register
