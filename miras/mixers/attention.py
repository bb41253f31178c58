"""The mixer `attention`: softmax attention over a window, or over the whole text."""

import dataclasses
from typing import ClassVar, Literal

from miras.config import added, require
from miras.layers.config import AttentionConfig, LayerConfig, MemoryConfig
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
        head_width: width of a head, >= 1; None for width / heads.
        rope: rotate queries and keys by their positions; without it there are none (NoPE).
        rope_share: the share of a head's channels that are rotated; see `LayerConfig`.
        qk_norm: the norm of queries and keys; see `LayerConfig`.
        qk_norm_eps: of that norm.
        gate: multiply what is read by sigmoid(x @ W).
    """

    uses: ClassVar[tuple[str, ...]] = ()
    measures: ClassVar[bool] = False
    rotates: ClassVar[bool] = True

    window: int | None = 64
    persistent: int = 0
    rope_base: float = 10000.0
    kv_heads: int | None = added(None)
    head_width: int | None = added(None)
    rope: bool = added(True)
    rope_share: float = added(1.0)
    qk_norm: Literal["rms", "rms_shared", "rms_all"] | None = added(None)
    qk_norm_eps: float = added(1e-5)
    gate: bool = added(False)

    def validate(self) -> None:
        """Check ranges."""
        require(
            self.rope or self.persistent == 0,
            f"attention.persistent={self.persistent} tokens are those without positions, which "
            "rope=false leaves out for all: use rope=true, or persistent=0.",
        )
        require(
            self.window is None or self.window >= 1,
            f"attention.window={self.window} must be at least 1, or none for full attention.",
        )
        _ = self.layer

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
    def layer(self) -> LayerConfig:
        """The layer around the attention."""
        return dataclasses.replace(
            self.options.layer,
            key_width=self.head_width,
            value_width=self.head_width,
            rope=self.rope,
            rope_share=self.rope_share,
            qk_norm=self.qk_norm,
            qk_norm_eps=self.qk_norm_eps,
            output_gate=self.gate,
            output_gate_by="sigmoid" if self.gate else "silu",
        )

    def layer_of(self, config):
        """The layer around the attention."""
        return self.layer

    @property
    def attention_rule(self) -> Rule:
        """The rule of the attention, whose memory is kv."""
        return self.options.rule(windowed=self.window is not None)

    def build(self, config, width, heads, rngs):
        """A layer around a kv memory."""
        from miras.layers.memory_layer import MemoryLayer  # configs load without flax

        memory = MemoryConfig(self.attention_rule, backend=config.backend)
        return MemoryLayer(memory, width, heads, config=self.layer, rngs=rngs)

    def grouped(self, config):
        """The option."""
        return self.kv_heads

    def growth(self, config, width, heads, itemsize):
        """A key and a value, without a window."""
        if self.window is not None:
            return 0
        head = self.head_width or width // heads
        return cached_bytes(head * (self.kv_heads or heads), itemsize)

    def flops(self, config, width, heads, context):
        """Scores and sums over the tokens that are seen."""
        seen = min(context, self.window or context) + self.persistent
        return attention_flops(heads * (self.head_width or width // heads), seen)

    def describe(self, config):
        """Which tokens are seen."""
        first = f", {self.persistent} persistent tokens" if self.persistent else ""
        if self.kv_heads is not None:
            first += f", {self.kv_heads} heads of keys and values"
        if self.window is None:
            return f"full attention{first}"
        return f"sliding-window attention, windows of {self.window}{first}"
