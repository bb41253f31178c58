"""LanguageModelConfig: a model as plain data."""

import dataclasses
from typing import Literal

from miras.config import Config, require
from miras.rule import Rule


@dataclasses.dataclass(frozen=True)
class LanguageModelConfig(Config):
    """A language model with a memory layer where Llama has attention.

    Attributes:
        rule: the memory's four parts.
        vocab: tokens; 257 for bytes and a document start.
        width: of the residual stream.
        layers: blocks.
        heads: memories in a layer, each of width / heads.
        chunk: tokens that share a snapshot of the memory; part of the model.
        mlp_ratio: SwiGLU's hidden width over `width`, rounded to a multiple of 8.
        conv: taps of the causal convolution on q, k and v; 0 for none.
        activation: after that convolution.
        lr_by_position: TTT's 1 / (1 + position in the chunk) on the inner learning rate.
        tie: one matrix for embedding and head.
        dtype: of activations and matrix products; parameters, memory and logits are float32.
        remat: recompute each block in the backward pass instead of keeping its activations.
    """

    rule: Rule = Rule()
    vocab: int = 257
    width: int = 128
    layers: int = 4
    heads: int = 4
    chunk: int = 16
    mlp_ratio: float = 8 / 3
    conv: int = 4
    activation: Literal["silu"] | None = None
    lr_by_position: bool = False
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
        require(self.conv >= 0, f"model.conv={self.conv} must not be negative.")

    @property
    def mlp_width(self) -> int:
        """SwiGLU's hidden width."""
        return max(8, round(self.width * self.mlp_ratio / 8) * 8)
