"""LanguageModelConfig: a model as plain data."""

import dataclasses
from typing import Literal

from miras import legality
from miras.config import Config, require
from miras.engine.walk import SaveEvery, check_save_every
from miras.layers.config import LayerConfig
from miras.precision import Precision
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
        refine: sweeps towards the online rule inside each chunk; see `miras.scan`.
        exact: the online rule in closed form; see `miras.scan`.
        mlp_ratio: SwiGLU's hidden width over `width`, rounded to a multiple of 8.
        layer: how the memory's inputs are made from tokens; see `miras.layers.LayerConfig`.
        tie: one matrix for embedding and head.
        dtype: of activations and matrix products; parameters and logits are float32,
            and so is the memory but for `precision`.
        remat: recompute each block in the backward pass instead of keeping its activations.
        save_every: chunks from one memory that is kept for the backward pass to the next, or
            "sqrt"; see `miras.scan`.
        precision: in which numbers the memories are kept, multiplied and summed; see
            `miras.Precision`.
    """

    rule: Rule = Rule()
    vocab: int = 257
    width: int = 128
    layers: int = 4
    heads: int = 4
    chunk: int = 16
    refine: int = 0
    exact: bool = False
    mlp_ratio: float = 8 / 3
    layer: LayerConfig = dataclasses.field(default_factory=LayerConfig)
    tie: bool = True
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: bool = True
    save_every: SaveEvery = None
    precision: Precision = dataclasses.field(default_factory=Precision)

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
        check_save_every(self.save_every, "model.save_every")
        for verdict in legality.of_semantics(self.rule, self.refine, self.exact):
            require(verdict.legal, verdict.reason)
        self.layer.check_rule(self.rule)
        self.precision.check_memory(self.rule.kinds()["memory"])

    @property
    def mlp_width(self) -> int:
        """SwiGLU's hidden width."""
        return max(8, round(self.width * self.mlp_ratio / 8) * 8)
