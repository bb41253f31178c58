"""The mixer `attention`: softmax attention over a window, or over the whole text."""

import dataclasses
from typing import ClassVar

from miras.config import added, require
from miras.layers.config import AttentionConfig, MemoryConfig
from miras.mixers.base import TokenMixer, register
from miras.mixers.costs import attention_flops, cached_bytes
from miras.rule.rule import Rule


@register("attention")
@dataclasses.dataclass(frozen=True)
class AttentionMixer(TokenMixer):
    """Softmax attention with rotary positions, as in Llama.

    Attributes:
        window: number of tokens that a query attends to, including its own, >= 1; None for all.
        persistent: number of learned tokens that every query also attends to (2501.00663, 3.3).
        rope_base: largest wavelength of the position embedding over 2 pi, > 1.
        kv_heads: number of heads of keys and values, a divisor of the heads of queries: each serves
            heads / kv_heads of these (grouped queries, 2305.13245); None for as many.
    """

    uses: ClassVar[tuple[str, ...]] = ()
    measures: ClassVar[bool] = False
    rotates: ClassVar[bool] = True

    window: int | None = 64
    persistent: int = 0
    rope_base: float = 10000.0
    kv_heads: int | None = added(None)

    def validate(self) -> None:
        """Check ranges."""
        require(
            self.window is None or self.window >= 1,
            f"attention.window={self.window} must be at least 1, or none for full attention.",
        )
        _ = self.options

    @classmethod
    def of(cls, attention: AttentionConfig, *, windowed: bool) -> "AttentionMixer":
        """The mixer of a model's attention options: of letter S if `windowed`, otherwise of A."""
        window = attention.window if windowed else None
        return cls(window, attention.persistent, attention.rope_base, attention.kv_heads)

    @property
    def options(self) -> AttentionConfig:
        """The options as layers take them."""
        return AttentionConfig(
            window=self.window or 1,
            persistent=self.persistent,
            rope_base=self.rope_base,
            kv_heads=self.kv_heads,
        )

    @property
    def attention_rule(self) -> Rule:
        """The rule of the attention, whose memory is kv."""
        return self.options.rule(windowed=self.window is not None)

    def build(self, config, width, heads, rngs):
        """A layer around a kv memory."""
        from miras.layers.memory_layer import MemoryLayer  # configs load without flax

        memory = MemoryConfig(self.attention_rule, backend=config.backend)
        return MemoryLayer(memory, width, heads, config=self.options.layer, rngs=rngs)

    def grouped(self, config):
        """The option."""
        return self.kv_heads

    def growth(self, config, width, heads, itemsize):
        """A key and a value, without a window."""
        if self.window is not None:
            return 0
        return cached_bytes(width // heads * (self.kv_heads or heads), itemsize)

    def flops(self, config, width, heads, context):
        """Scores and sums over the tokens that are seen."""
        seen = min(context, self.window or context) + self.persistent
        return attention_flops(width, seen)

    def describe(self, config):
        """Which tokens are seen."""
        first = f", {self.persistent} persistent tokens" if self.persistent else ""
        if self.kv_heads is not None:
            first += f", {self.kv_heads} heads of keys and values"
        if self.window is None:
            return f"full attention{first}"
        return f"sliding-window attention, windows of {self.window}{first}"
