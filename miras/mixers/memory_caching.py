r"""Memory caching: a memory that also reads itself as it was at the ends of earlier segments.

"Memory Caching: RNNs with Growing Memory", arXiv 2602.24281, over any rule. A document is cut into
segments of L tokens. M_i is the memory at the end of segment i, N the current segment, M_t its
memory after token t, and m_i the mean of the keys of segment i:

    residual    y_t = M_t(q_t) + sum_{i<N} M_i(q_t)
    gated       y_t = g_N M_t(q_t) + sum_{i<N} g_i M_i(q_t),    g = softmax_i <x_t W_u, m_i>
    soup        y_t = M*(q_t), the parameters of M* being the average, with the weights g, of those
                of the M_i and of M_t; with a linear memory, that is the gated form
    sparse      as gated, of the k cached memories with the largest <x_t W_u, m_i>, and M_t

With one segment the softmax is 1, and each is the rule itself. Choices where the paper leaves one:

- All is per head: W_u maps x to a vector of the width of a key for each head, and m_i is the mean
  of the head's keys as the memory is written with them. The scores have no scale.
- m_N of the current segment is the mean of its keys up to token t, its own among them.
- A sparse mixture takes its softmax over the selected memories; `softmax_over="all"` takes it over
  all that the token sees, and drops the others without rescaling. The selection has no gradient.
- A segment's memory starts where the segment before ended (`start="chained"`, so that the cache
  holds checkpoints of one memory), or at the learned initial memory (`start="fresh"`; segments are
  then computed in parallel).
- Parameters are averaged as they are read: after the link of a retention that has one.
- `segmentation="binary"`: after n segments, the cache holds the ends of the blocks of n's binary
  expansion, 13 = 8 + 4 + 1: the memories after segments 8, 12 and 13. m_i is then the mean of the
  keys of the block. When two blocks merge, the later memory, which has seen both, stays.
- The cache holds at most M memories (`max_segments`), and its size does not change. Without room,
  the oldest memory is dropped: a token reads the last M segments. With binary segments, M slots
  hold all blocks of the first 2^(M+1) - 2 segments.

A document resets the cache. Calls may begin and end anywhere in a segment. Calls and documents that
begin at multiples of L need no extra computation; several documents that begin elsewhere in one
call are computed token by token, as is the soup of a memory that is not linear.
"""

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

from miras.mixers.base import MixerConfig, TokenMixer, register
from miras.mixers.caching import Caching
from miras.mixers.costs import weights_of
from miras.parts.formula import Line

if TYPE_CHECKING:
    from flax import nnx


@register("memory_caching")
@dataclasses.dataclass(frozen=True)
class MemoryCachingMixer(Caching, TokenMixer):
    """A memory and a cache of it: `miras.mixers.memory_caching`."""

    def build(self, config: MixerConfig, width: int, heads: int, rngs: "nnx.Rngs") -> Any:
        """A layer whose memories are cached."""
        # Configs load without flax.
        from miras.layers.memory_layer import MemoryLayer
        from miras.mixers.cached_weights import CachedWeights

        weights = functools.partial(CachedWeights, caching=self)
        return MemoryLayer(
            config.memory, width, heads, config=config.layer, weights=weights, rngs=rngs
        )

    def check(self, config: MixerConfig, where: str) -> None:
        """A memory with weights, and segments of whole chunks."""
        self.check_memory(config.memory, where)

    def align(self, config: MixerConfig) -> int | None:
        """The segment."""
        del config
        return self.segment

    def flops(self, config: MixerConfig, width: int, heads: int, context: int) -> float:
        """Those of the memory, and of a read of each cached one."""
        entries = min(self.max_segments, context // self.segment)
        if self.segmentation == "binary":
            entries = min(self.max_segments, (context // self.segment).bit_length())
        sizes = sum(leaf.size for leaf in weights_of(config.rule, width // heads).values())
        return super().flops(config, width, heads, context) + 2.0 * heads * entries * sizes

    def formula(self) -> tuple[Line, ...]:
        """The read of all memories."""
        at = "W_[i]: the memory after segment i"
        seen = f"i: cached segments of {self.segment}"
        if self.segmentation == "binary":
            seen = f"i: cached blocks of segments of {self.segment}"
        if self.combine == "residual":
            return (Line("o_t", r"y_t + \sum_i M(W_{[i]}, q_t)", when=f"{seen}; {at}"),)
        read = r"M(s_t W_t + \sum_i s_i W_{[i]}, q_t)"
        if self.combine != "soup":
            read = r"s_t y_t + \sum_i s_i M(W_{[i]}, q_t)"
        most = f" and the {self.top_k} largest" if self.combine == "sparse" else ""
        return (
            Line("o_t", read, when=f"{seen}{most}; {at}"),
            Line(
                "s",
                r"\mathrm{softmax}_i \langle x_t W_u, m_i \rangle",
                when="m_i: the mean of the keys of segment i; of the current one, up to t",
            ),
        )

    def sources(self) -> tuple[str, ...]:
        """The paper."""
        return ("Memory Caching, arXiv 2602.24281",)

    def describe(self, config: MixerConfig) -> str:
        """The combination, and the cache's size."""
        del config
        most = f", the {self.top_k} nearest" if self.combine == "sparse" else ""
        blocks = "blocks of " if self.segmentation == "binary" else ""
        return (
            f"cached memories, {self.combine}{most}, {blocks}segments of {self.segment}, at most "
            f"{self.max_segments}, {self.start} starts"
        )
