"""The mixers `mac`, `mag` and `mal`: Titans' combinations of a memory with attention."""

import dataclasses
import importlib
from typing import TYPE_CHECKING, Any, ClassVar

from miras.config import require
from miras.mixers.base import MixerConfig, TokenMixer, register
from miras.mixers.costs import attention_flops, weights_of

if TYPE_CHECKING:
    from flax import nnx


@dataclasses.dataclass(frozen=True)
class _WithAttention(TokenMixer):
    """A memory combined with sliding-window attention; `module` names the class that `build` calls.

    Modules are imported when a model is built, since configs must load without flax.
    """

    uses: ClassVar[tuple[str, ...]] = (*TokenMixer.uses, "attention")
    rotates: ClassVar[bool] = True
    module: ClassVar[tuple[str, str]]
    role: ClassVar[str]

    def build(self, config: MixerConfig, width: int, heads: int, rngs: "nnx.Rngs") -> Any:
        """The module."""
        home, name = self.module
        module = getattr(importlib.import_module(home), name)
        return module(config.memory, config.layer, config.attention, width, heads, rngs)

    def check(self, config: MixerConfig, where: str) -> None:
        """A memory that is not attention itself."""
        require(
            not config.rule.memory.keeps_tokens,
            f"{self._named(where)} combines a memory with attention, but memory "
            f"{config.rule.memory.kind!r} is attention: use architecture='lmm', or another memory.",
        )

    def grouped(self, config: MixerConfig) -> int | None:
        """That of the attention."""
        return config.attention.kv_heads

    def flops(self, config: MixerConfig, width: int, heads: int, context: int) -> float:
        """Those of the memory and of the attention."""
        attention = config.attention
        seen = min(context, attention.window) + attention.persistent
        return super().flops(config, width, heads, context) + attention_flops(width, seen)

    def describe(self, config: MixerConfig) -> str:
        """The memory's role and the attention's reach."""
        attention = config.attention
        first = f", {attention.persistent} persistent tokens" if attention.persistent else ""
        if attention.kv_heads is not None:
            first += f", {attention.kv_heads} heads of keys and values"
        return f"memory {self.role}, {self._reach(config)}{first}"

    def _named(self, where: str) -> str:
        field = "architecture" if where == "model." else "mixer"
        return f"{where}{field}={self.kind!r}"

    def _reach(self, config: MixerConfig) -> str:
        return f"a window of {config.attention.window}"


@register("mac")
@dataclasses.dataclass(frozen=True)
class MACMixer(_WithAttention):
    """Memory as a context: `miras.mixers.mac`."""

    module: ClassVar[tuple[str, str]] = ("miras.mixers.mac", "MAC")
    role: ClassVar[str] = "as a context"
    loops: ClassVar[bool] = True

    def check(self, config, where):
        """Chunks and windows within segments."""
        super().check(config, where)
        window, segment = config.attention.window, config.attention.segment
        named = self._named(where)
        require(
            window <= segment,
            f"attention.window={window} is larger than attention.segment={segment}, and "
            f"{named} attends within a segment only: use a window of at most {segment}, or a "
            "larger segment.",
        )
        layer = config.layer
        require(
            not (layer.skip or (layer.rope and layer.rope_angles == "cumulative")),
            f"{named} retrieves from a memory that queries of other angles and values are read "
            "from: use layer.skip=false and layer.rope_angles='position'.",
        )
        require(
            segment % config.chunk == 0,
            f"attention.segment={segment} must be a multiple of {where}chunk={config.chunk}, as "
            f"{named} retrieves from the memory before a segment.",
        )

    def align(self, config):
        """The segment."""
        return config.attention.segment

    def flops(self, config, width, heads, context):
        """Of h and of x, half a segment on average, and a retrieval."""
        attention = config.attention
        memory = TokenMixer.flops(self, config, width, heads, context)
        halfway = min(attention.window, (attention.segment + 1) / 2)
        sizes = (leaf.size for leaf in weights_of(config.rule, width // heads).values())
        reads = heads * sum(sizes)
        seen = 2 * halfway + attention.persistent
        return memory + attention_flops(width, seen) + 2.0 * reads

    def until_parallel(self, config, state):
        """Tokens to the end of the segment."""
        return -state.count % config.attention.segment

    def _reach(self, config):
        return f"segments of {config.attention.segment}"


@register("mag")
@dataclasses.dataclass(frozen=True)
class MAGMixer(_WithAttention):
    """Memory as a gate: `miras.mixers.titans`."""

    module: ClassVar[tuple[str, str]] = ("miras.mixers.titans", "MAG")
    role: ClassVar[str] = "as a gate"
    takes_mimo: ClassVar[bool] = True


@register("mal")
@dataclasses.dataclass(frozen=True)
class MALMixer(_WithAttention):
    """Memory as a layer: `miras.mixers.titans`."""

    module: ClassVar[tuple[str, str]] = ("miras.mixers.titans", "MAL")
    role: ClassVar[str] = "as a layer"
    takes_mimo: ClassVar[bool] = True
