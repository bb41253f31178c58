r"""TNT: one memory over the whole document and several over shards of it, for any miras rule.

Li et al., arXiv 2511.07343. V is the global memory, with large chunks; W_i are local ones with
small chunks C_i, each of which starts anew from a learned start of its own every S tokens of a
document. With s the first token of the shard of token t,

    V   = rule(chunk = C_G, read = "snapshot"),            from the document's start
    W_i = local rule(chunk = C_i),                         from W_{i,0} at s
    P_t = sum_{s <= r <= t} k_r k_r^T / |k_r|^2
    y_t = V(q_t) + sum_i W_i(P_t q_t)

V is read as it stood at the start of the chunk, so the local memories provide what it has not seen.
P_t projects a query onto the keys that the local memories were written with, which q_t need not
resemble. It is a matrix memory itself: the Hebbian one with k_r / |k_r| as key and as value.

The shards are independent of each other. Where documents begin at multiples of S they are folded
into the batch: a row of T tokens becomes T / S rows of S tokens, which gives a kernel a larger
batch and a shorter loop. Elsewhere a shard is a segment.

Choices where the paper is ambiguous or inconsistent:

- Equation 6 as printed counts the gradients of earlier tokens twice; here a chunk's steps start
  from the memory at the chunk's start, as in any miras rule.
- Shards count from the document's start. A local memory starts anew before the first token of a
  shard.
- All memories share q, k and v. Each has its own gates and its own learned start.
- Outputs are summed as they are; the layer's norm acts on the sum.
- The paper shows gradient descent; momentum and buffers of other rules start at 0 in a shard.
"""

import dataclasses
import functools
import math
from typing import ClassVar

from miras.config import require
from miras.layers.config import MemoryConfig
from miras.mixers.base import MixerConfig, TokenMixer, register
from miras.mixers.costs import memory_flops
from miras.mixers.query_projection import PROJECTION
from miras.parts.formula import Line
from miras.rule.options import ScanOptions
from miras.rule.rule import Rule


@register("tnt")
@dataclasses.dataclass(frozen=True)
class TNTMixer(TokenMixer):
    """A global memory and local ones, as above, with the projections of a `MemoryLayer`.

    The rule is that of the global memory; `refine` and `exact` act in local memories only, since
    the global one is read at the start of its chunk. Neither `global_chunk` nor `local_chunks` nor
    `shard` changes a parameter, so a trained model can go on with others: the paper's second stage
    trains 5 % longer at smaller local chunks (`miras train --from RUN`).

    Attributes:
        local_rule: of the local memories; None is the rule of the global one with read="token".
        global_chunk: C_G, >= 1; 2048 in the paper.
        local_chunks: C_i of each local memory, divisors of `shard`; 4 to 32 in the paper, and down
            to 1 in its second stage. Without any, the mixer is the global memory alone.
        shard: S, tokens after which local memories start anew, >= 1; 2048 or 4096 in the paper.
        qk_projection: whether P_t projects the queries of local memories.

    Raises:
        ConfigError: a value is out of range.
    """

    uses: ClassVar[tuple[str, ...]] = ("rule", "refine", "exact", "precision", "layer")

    local_rule: Rule | None = None
    global_chunk: int = 64
    local_chunks: tuple[int, ...] = (8,)
    shard: int = 64
    qk_projection: bool = True

    def validate(self) -> None:
        """Check ranges."""
        for name in ("global_chunk", "shard"):
            value = getattr(self, name)
            require(value >= 1, f"tnt.{name}={value} must be at least 1.")
        for chunk in self.local_chunks:
            require(
                chunk >= 1, f"tnt.local_chunks={list(self.local_chunks)} must be at least 1 each."
            )
            require(
                self.shard % chunk == 0,
                f"tnt.shard={self.shard} is no multiple of the local chunk {chunk}, in which a "
                f"shard would end: use shard={-(-self.shard // chunk) * chunk}, or a divisor of "
                f"{self.shard} in tnt.local_chunks.",
            )

    def check(self, config: MixerConfig, where: str) -> None:
        """Rules of memories with weights, which the options and the layer support."""
        for rule in (config.rule, self.local_rule or config.rule):
            require(
                not rule.memory.keeps_tokens,
                f"{where}mixer 'tnt' reads memories that learn, but memory {rule.memory.kind!r} "
                "keeps its tokens: use another memory.",
            )
        layer, local = config.layer, self.local_rule
        if local is not None:
            config.check_rule(local, where)
            layer.check_rule(local)
            require(
                layer.terms(local) == layer.terms(config.rule),
                f"tnt.local_rule takes {layer.terms(local)} associations per token and the global "
                f"rule {layer.terms(config.rule)}: give both algorithms equal steps.",
            )
        _ = self.document(config)

    def document(self, config: MixerConfig) -> MemoryConfig:
        """The global memory: the rule, read at the start of its chunk, with its scan's options."""
        rule = dataclasses.replace(config.rule, read="snapshot")
        own = config.options.replace(chunk=self.global_chunk, refine=0, exact=False)
        return MemoryConfig(rule, **vars(own))

    def local(self, config: MixerConfig) -> tuple[MemoryConfig, ...]:
        """The local memories."""
        rule = self.local_rule or dataclasses.replace(config.rule, read="token")
        return tuple(
            MemoryConfig(rule, **vars(config.options.replace(chunk=chunk)))
            for chunk in self.local_chunks
        )

    def build(self, config, width, heads, rngs):
        """A `MemoryLayer` around the memories."""
        # Configs load without flax.
        from miras.layers.memory_layer import MemoryLayer
        from miras.mixers.tnt_memories import TNTMemories

        memories = functools.partial(
            TNTMemories,
            local=self.local(config),
            shard=self.shard,
            projected=self.qk_projection,
        )
        whole = self.document(config)
        return MemoryLayer(whole, width, heads, config=config.layer, weights=memories, rngs=rngs)

    def align(self, config):
        """The first multiple of the shard and of the global chunk."""
        return math.lcm(self.shard, self.global_chunk) if self.local_chunks else self.global_chunk

    def rules(self, config):
        """Of the global memory and of each local one."""
        memories = self.document(config), *self.local(config)
        return tuple(memory.rule for memory in memories)

    def flops(self, config, width, heads, context):
        """Those of each memory and of the projection."""
        memories = self.document(config), *self.local(config)
        scans = [(memory.rule, memory.options) for memory in memories]
        if self.local_chunks and self.qk_projection:
            scans.append((PROJECTION, ScanOptions(chunk=self.shard)))
        return sum(
            memory_flops(rule, options, config.layer, width, heads, context)
            for rule, options in scans
        )

    def formula(self):
        """The sum of the reads."""
        if not self.local_chunks:
            return ()
        at = r"P_t q_t" if self.qk_projection else "q_t"
        lines = (
            Line(
                "o_t",
                rf"y_t + \sum_i M(W_{{t,i}}, {at})",
                when=f"W_{{t,i}}: local memories, anew every {self.shard} tokens",
            ),
        )
        if self.qk_projection:
            lines += (Line("P_t", r"P_{t-1} + k_t^\top k_t / \|k_t\|_2^2"),)
        return lines

    def sources(self):
        """The paper."""
        return ("TNT, arXiv 2511.07343, section 4",)

    def describe(self, config):
        """The chunks and the shard."""
        del config
        local = ", ".join(map(str, self.local_chunks)) or "none"
        text = f"a global memory, chunks of {self.global_chunk}; local ones, chunks of {local}"
        if not self.local_chunks:
            return f"a global memory, chunks of {self.global_chunk}"
        return f"{text}, anew every {self.shard} tokens" + (
            "" if self.qk_projection else ", queries not projected"
        )
