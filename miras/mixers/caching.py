"""Caching: which memories are cached, and how their reads are combined."""

import dataclasses
from typing import Literal

from miras.config import Config, require
from miras.layers.config import MemoryConfig


@dataclasses.dataclass(frozen=True)
class Caching(Config):
    """The options of a cache of memories; see `miras.mixers.memory_caching`.

    Attributes:
        combine: "residual", the sum of all reads; "gated", their sum weighted by a softmax;
            "soup", one read of the parameters averaged with these weights; "sparse", as gated, of
            the `top_k` cached memories with the largest scores and the current one.
        segment: L, tokens of a segment, a multiple of the memory's chunk; 256 in the paper.
        max_segments: M, how many memories the cache holds, >= 1; the oldest makes room.
        segmentation: "constant", each segment's end is cached; "binary", the ends of the blocks in
            the binary expansion of the number of segments so far, the largest first.
        start: where a segment's memory starts: "chained", where the segment before ended; "fresh",
            at the initial memory.
        top_k: of "sparse", >= 1.
        softmax_over: of "sparse": the "selected" memories, or "all" that a token sees.
    """

    combine: Literal["residual", "gated", "soup", "sparse"] = "gated"
    segment: int = 64
    max_segments: int = 16
    segmentation: Literal["constant", "binary"] = "constant"
    start: Literal["chained", "fresh"] = "chained"
    top_k: int = 4
    softmax_over: Literal["selected", "all"] = "selected"

    def validate(self) -> None:
        """Check ranges."""
        for name in ("segment", "max_segments", "top_k"):
            value = getattr(self, name)
            require(value >= 1, f"memory_caching.{name}={value} must be at least 1.")
        require(
            self.segmentation == "constant" or self.start == "chained",
            "memory_caching.segmentation='binary' caches the memory at the end of a block of "
            "segments, which start='fresh' restarts within the block: use start='chained', or "
            "segmentation='constant'.",
        )

    def check_memory(self, memory: MemoryConfig, where: str) -> None:
        """Raise `ConfigError` for a rule that cannot be cached so.

        Args:
            memory: the rule and the options of its scan.
            where: what the user calls its config, such as "model.".
        """
        rule = memory.rule
        require(
            not rule.memory.keeps_tokens,
            f"memory_caching reads the weights of earlier memories, but memory "
            f"{rule.memory.kind!r} keeps tokens and has none: use a memory with weights.",
        )
        require(
            self.segment % memory.chunk == 0,
            f"memory_caching.segment={self.segment} must be a multiple of "
            f"{where}chunk={memory.chunk}, as a memory is cached at the end of a chunk.",
        )
        if self.combine == "soup":
            require(
                rule.algorithm.least_squares is None,
                "memory_caching.combine='soup' averages parameters, but algorithm "
                f"{rule.algorithm.kind!r} keeps sums of which they are solved: use "
                "combine='gated', 'residual' or 'sparse'.",
            )
            require(
                rule.read == "token",
                "memory_caching.combine='soup' averages the memory after a token's write, which "
                f"read={rule.read!r} does not read: use combine='gated', or read='token'.",
            )
