"""LanguageModelConfig: the config of a language model."""

import dataclasses
from collections.abc import Iterator
from typing import Literal

from miras.backends.dispatch import check_backend
from miras.config import require
from miras.layers import AttentionConfig, LayerConfig, MemoryConfig
from miras.memory import TokenCache
from miras.rule.options import ScanOptions
from miras.rule.rule import Rule

LETTERS = {"M": "memory", "S": "sliding-window attention", "A": "full attention"}


@dataclasses.dataclass(frozen=True)
class LanguageModelConfig(ScanOptions):
    """A language model like Llama with memories in place of attention, in some or all layers.

    Attributes:
        rule: the memory's four parts.
        architecture: what a memory layer is: "lmm", the memory alone, or Titans' memory as a
            context ("mac"), as a gate ("mag") or as a layer ("mal"); see `miras.models.titans`.
        pattern: the layers, one letter each, repeated over the depth: M memory, S sliding-window
            attention, A full attention; spaces are ignored, as in "M S M S".
        attention: of S and A, and of mac, mag and mal.
        vocab: number of tokens; 257 for bytes and a document start.
        width: of the residual stream.
        layers: number of blocks.
        heads: memories per layer, each of width / heads.
        chunk: tokens that share a snapshot of the memory; part of the model's definition.
        refine: sweeps towards the online rule within each chunk; see `miras.scan`.
        exact: the online rule in closed form; see `miras.scan`.
        mlp_ratio: SwiGLU's hidden width over `width`, rounded to a multiple of 8.
        layer: how tokens become the memory's inputs; see `miras.layers.LayerConfig`.
        tie: share one matrix between embedding and head.
        dtype: of activations and matrix products; parameters and logits are float32, and so are
            memories unless `precision` says otherwise.
        remat: recompute each block in the backward pass instead of storing its activations.
        save_every: checkpoint interval of the memory in chunks, or "sqrt"; see `miras.scan`.
        precision: dtypes of the memories; see `miras.Precision`.
        backend: of the memories; see `miras.scan`.
    """

    rule: Rule = Rule()
    architecture: Literal["lmm", "mac", "mag", "mal"] = "lmm"
    pattern: str = "M"
    attention: AttentionConfig = dataclasses.field(default_factory=AttentionConfig)
    vocab: int = 257
    width: int = 128
    layers: int = 4
    heads: int = 4
    chunk: int = dataclasses.field(default=16, kw_only=True)
    mlp_ratio: float = 8 / 3
    layer: LayerConfig = dataclasses.field(default_factory=LayerConfig)
    tie: bool = True
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: bool = True

    def validate(self) -> None:
        """Check ranges."""
        for name in ("vocab", "width", "layers", "heads", "chunk"):
            value = getattr(self, name)
            require(value >= 1, f"model.{name}={value} must be at least 1.")
        require(
            self.width % self.heads == 0,
            f"model.width={self.width} must be a multiple of model.heads={self.heads}.",
        )
        require(self.mlp_ratio > 0, f"model.mlp_ratio={self.mlp_ratio} must be positive.")
        self.check_rule(self.rule, "model.")
        check_backend(self.backend, "model.backend")
        self._check_pattern()
        self._check_architecture()
        self.layer.check_rule(self.rule)

    def _check_pattern(self) -> None:
        letters = self.letters
        wrong = [letter for letter in letters if letter not in LETTERS]
        legal = ", ".join(f"{letter} ({what})" for letter, what in LETTERS.items())
        require(
            bool(letters) and not wrong,
            f"model.pattern={self.pattern!r} must consist of the letters {legal}, as in 'M S M S'.",
        )
        require(
            self.layers % len(letters) == 0,
            f"model.layers={self.layers} must be a multiple of the {len(letters)} letters "
            f"of model.pattern={self.pattern!r}.",
        )
        if letters != "M" or self.architecture != "lmm":
            require(
                self.width // self.heads % 2 == 0,
                f"model.width={self.width} / model.heads={self.heads} must be even, since the "
                "attention rotates pairs of channels.",
            )

    def _check_architecture(self) -> None:
        if self.architecture == "lmm":
            return
        named = f"model.architecture={self.architecture!r}"
        require(
            not self.rule.memory.keeps_tokens,
            f"{named} combines a memory with attention, but memory {self.rule.memory.kind!r} is "
            "attention: use architecture='lmm', or another memory.",
        )
        if self.architecture == "mac":
            window, segment = self.attention.window, self.attention.segment
            require(
                window <= segment,
                f"attention.window={window} is larger than attention.segment={segment}, and "
                f"{named} attends within a segment only: use a window of at most {segment}, or a "
                "larger segment.",
            )
            require(
                segment % self.chunk == 0,
                f"attention.segment={segment} must be a multiple of model.chunk={self.chunk}, as "
                f"{named} retrieves from the memory before a segment.",
            )

    @property
    def letters(self) -> str:
        """The pattern without spaces."""
        return "".join(self.pattern.split())

    @property
    def memory_layers(self) -> tuple[int, ...]:
        """Indices of the layers with a memory; of all layers if the pattern has none."""
        letters = self.letters
        found = [n for n in range(self.layers) if letters[n % len(letters)] == "M"]
        return tuple(found) or tuple(range(self.layers))

    @property
    def align(self) -> int:
        """Documents that begin at multiples of it need no extra computation: chunk or segment."""
        mac = self.architecture == "mac" and "M" in self.letters
        return self.attention.segment if mac else self.chunk

    @property
    def memory(self) -> MemoryConfig:
        """The rule and the options of the scan."""
        return MemoryConfig(self.rule, **vars(self.options))

    @property
    def growth_bytes(self) -> int:
        """Bytes that each token adds to a sequence's state; 0 without full attention."""
        number = 2 if self.dtype == "bfloat16" else 4
        token = 2 * self.width * number + 5  # k, v, a flag and a segment
        whole = sum(cache.window is None for cache in self._attended())
        return self.layers // len(self.letters) * whole * token

    def _attended(self) -> Iterator[TokenCache]:
        """The kv memories of one pass through the pattern."""
        for letter in self.letters:
            memory = self.rule.memory
            if letter != "M":
                memory = self.attention.rule(windowed=letter == "S").memory
            if memory.token_cache is not None:
                yield memory.token_cache

    @property
    def mlp_width(self) -> int:
        """SwiGLU's hidden width."""
        return max(8, round(self.width * self.mlp_ratio / 8) * 8)
