"""The contract of a memory: what is written, and how it is read."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import ClassVar, NamedTuple, Protocol

import jax

from miras.array_typing import Array, Weights
from miras.config.registry import Registry
from miras.errors import ConfigError
from miras.parts.formula import MemoryFormula, Symbols
from miras.parts.gate import Side
from miras.parts.part import Part


class Reader(Protocol):
    """The only way in which a memory touches its weights.

    The engine swaps readers behind one `apply`: plain weights, weights with taps for gradients, or
    the weights as they stand after each token of a chunk, which are never formed.
    """

    def linear(self, name: str, x: Array) -> Array:
        """x @ W[name]: [C, in] to [C, out]."""
        ...

    def transposed(self, name: str, x: Array) -> Array:
        """x @ W[name]^T: [C, out] to [C, in]."""
        ...

    def scale(self, name: str, x: Array) -> Array:
        """x * W[name]: [C, out] to [C, out]."""
        ...

    def shift(self, name: str, x: Array) -> Array:
        """x + W[name]: [C, out] to [C, out]."""
        ...

    def fixed(self, name: str) -> Array:
        """A weight that the inner loop reads and never writes."""
        ...

    def gate(self, name: str) -> Array:
        """A gate that the memory declares, of the tokens at hand: [C], or [C, D] per channel."""
        ...


class Fit(NamedTuple):
    """What a bias compares at each of C tokens, both [C, D].

    Attributes:
        pred: what the memory answers.
        target: what it should answer.
    """

    pred: Array
    target: Array


class TokenCache(NamedTuple):
    """How a memory that keeps its tokens attends to them.

    Attributes:
        window: tokens that a query sees, its own among them; None for all.
        scale: of the scores; None for 1 / sqrt(dk).
        persistent: learned tokens that every query sees, the weights "k" and "v".
    """

    window: int | None
    scale: float | None
    persistent: int


@dataclasses.dataclass(frozen=True)
class Memory(Part):
    """Memory structure M(W, x).

    To add one: subclass with frozen fields, implement `init` and `apply`, decorate with
    `@miras.memory.register("kind")`. Each weight name may be read once in `apply`, through the
    reader only; `read.gate(name)` gives the gates that `gates` declares, in the read of a key those
    of its token and in the read of a query those of its. Names listed by `fixed` stay as they are
    while the memory learns. `sides` says which weights gates per channel act on. `formula` and
    `sources` write it for `miras describe`. `miras.testing.check_memory` checks the whole.
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

    def fits(self, read: Reader, k: Array, v: Array) -> tuple[Fit, ...]:
        """What tokens teach the memory: the bias is summed over the pairs.

        M(W, k) against v, unless a memory learns from something other than its own answers, as one
        does that fits keys and values to a code. As in `apply`, each weight is read once at most.

        Args:
            read: of the weights at which gradients are taken.
            k: keys [C, dk].
            v: values [C, dv].
        """
        return (Fit(self.apply(read, k), v),)

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
    def channel_sides(self) -> frozenset[str]:
        """The sides that some weight of the memory has: what gates per channel can act on."""
        return _channel_sides(self)

    @property
    def slots(self) -> int | None:
        """How many slots gates per slot have a value for; None for a memory without slots."""
        return None

    @property
    def token_cache(self) -> TokenCache | None:
        """How the memory attends to the tokens themselves; None for one that has weights."""
        return None

    @property
    def keeps_tokens(self) -> bool:
        """Whether the memory keeps tokens instead of weights: it is attention."""
        return self.token_cache is not None

    @property
    def associates(self) -> bool:
        """Whether tokens are written by `associations` instead of along a gradient."""
        return False

    @property
    def is_linear(self) -> bool:
        """Whether M(W, x) = features(x) @ w1, the memory that closed forms are known for."""
        return False

    @property
    def fits_linearly(self) -> bool:
        """Whether each pred of `fits` is the read of one weight by an input without weights.

        With a quadratic bias the gradients of a chunk then have a closed form. `fits` reads the
        weights in the order of its pairs.
        """
        return self.is_linear

    def features(self, read: Reader, x: Array) -> Array:
        """What the first weight multiplies: x itself but for feature maps."""
        del read
        return x

    def associations(
        self, k: Array, v: Array, gates: Mapping[str, Array], decays: Mapping[Side, Array]
    ) -> dict[str, tuple[Array, Array]]:
        """What a token writes where that is not a gradient: (key, value) by weight.

        Slots that the token itself chooses (ABC, GSA) are written so: w <- w + eta key^T value.

        Args:
            k: keys [C, dk].
            v: values [C, dv].
            gates: the memory's own gates, [C] or [C, D].
            decays: the retention's log decays by side, [C] for "head" and [C, D] for channels.
        """
        raise NotImplementedError

    def formula(self, gates: Symbols) -> MemoryFormula | None:
        """What `miras.equations` writes of M; None where only the member's name is known."""
        del gates
        return None


@functools.cache
def _channel_sides(memory: Memory) -> frozenset[str]:
    try:
        weights = jax.eval_shape(lambda: memory.init(jax.random.key(0), 8, 8))
    except ConfigError:  # a memory of other widths: gates are checked when it is called
        return frozenset()
    named = (memory.sides(name) for name in weights if name not in memory.fixed)
    return frozenset(side for sides in named for side in sides if side is not None)


register = Memory.registry.register
