"""LanguageModel: Llama's macro-architecture around memory layers."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer

from miras.config import require
from miras.layers import Health, LayerState, MemoryLayer, RMSNorm, SwiGLU
from miras.layers.param import Linear, normal
from miras.models.config import LanguageModelConfig
from miras.typing import Array


class Block(nnx.Module):
    """x + memory(norm(x)), then x + SwiGLU(norm(x))."""

    def __init__(self, config: LanguageModelConfig, rngs: nnx.Rngs):
        self.memory_norm = RMSNorm((config.width,), ("embed",))
        self.memory = MemoryLayer(
            config.rule,
            config.width,
            config.heads,
            config=config.layer,
            chunk=config.chunk,
            refine=config.refine,
            exact=config.exact,
            save_every=config.save_every,
            precision=config.precision,
            rngs=rngs,
        )
        self.mlp_norm = RMSNorm((config.width,), ("embed",))
        self.mlp = SwiGLU(config.width, config.mlp_width, rngs)

    def __call__(
        self,
        x: Array,
        state: LayerState | None,
        inputs: "Inputs",
        depth: Array,
        *,
        segments_at_chunks: bool,
        health: bool,
    ):
        """One block; see `MemoryLayer.__call__`."""
        y, state, measured = self.memory(
            self.memory_norm(x),
            segment_ids=inputs.segment_ids,
            mask=inputs.mask,
            state=state,
            segments_at_chunks=segments_at_chunks,
            depth=depth,
            health=health,
        )
        x = x + y
        return x + self.mlp(self.mlp_norm(x)), state, measured


class Inputs(NamedTuple):
    """What every block sees besides the residual stream."""

    segment_ids: Array | None
    mask: Array | None


class LanguageModel(nnx.Module):
    """Next-token model: embedding, blocks under one scan, norm, head.

    Every parameter is float32 and names its logical axes: vocab, embed, heads, mlp, layers.

    Args:
        config: the model as data.
        rngs: stream `params`.
    """

    def __init__(self, config: LanguageModelConfig, rngs: nnx.Rngs):
        self.config = config
        std = config.width**-0.5  # unit logits behind the tied head, unit tokens behind the norm
        self.embedding = normal(rngs, (config.vocab, config.width), ("vocab", "embed"), std)

        @nnx.split_rngs(splits=config.layers)
        @nnx.vmap(transform_metadata={nnx.PARTITION_NAME: "layers"})
        def blocks(rngs: nnx.Rngs) -> Block:
            return Block(config, rngs)

        self.blocks = blocks(rngs)
        self.norm = RMSNorm((config.width,), ("embed",))
        if not config.tie:
            self.head = Linear((config.width, config.vocab), ("embed", "vocab"), rngs)

    def init_state(self, batch: int) -> LayerState:
        """The state before the first token, leaves [layers, B, ...]; its size never grows."""
        dtype = jnp.dtype(self.config.dtype)
        make = nnx.vmap(lambda block: block.memory.init_state(batch, dtype), in_axes=0)
        return make(self.blocks)

    def __call__(
        self,
        tokens: Array,
        *,
        segment_ids: Array | None = None,
        mask: Array | None = None,
        state: LayerState | None = None,
        segments_at_chunks: bool = False,
    ) -> tuple[Array, LayerState]:
        """Logits of each next token.

        Args:
            tokens: [B, T] int, in [0, vocab).
            segment_ids: [B, T] int; memories and convolutions start anew where it changes.
            mask: [B, T] bool; tokens with False are not written.
            state: where to go on from, as returned by an earlier call or by `init_state`.
            segments_at_chunks: promise that segments begin at multiples of the chunk only, as the
                data pipeline sees to; saves compiling for segments anywhere.

        Returns:
            logits [B, T, vocab] float32, and the state after the last token.
        """
        inputs = Inputs(segment_ids, mask)
        logits, state, _ = self._forward(tokens, inputs, state, segments_at_chunks, health=False)
        return logits, state

    def health(
        self,
        tokens: Array,
        *,
        segment_ids: Array | None = None,
        mask: Array | None = None,
        segments_at_chunks: bool = False,
    ) -> Health:
        """The memories' health over a batch, leaves [layers]; arguments as `__call__`."""
        inputs = Inputs(segment_ids, mask)
        _, _, health = self._forward(tokens, inputs, None, segments_at_chunks, health=True)
        assert health is not None
        return health

    def _forward(
        self,
        tokens: Array,
        inputs: Inputs,
        state: LayerState | None,
        segments_at_chunks: bool,
        health: bool,
    ) -> tuple[Array, LayerState, Health | None]:
        dtype = jnp.dtype(self.config.dtype)
        tokens = check_tokens(tokens, self.config.vocab)
        for name, x in inputs._asdict().items():
            require(
                x is None or x.shape == tokens.shape,
                f"{name} has shape {getattr(x, 'shape', None)}: it must be that of the tokens, "
                f"{tokens.shape}.",
            )
        x = self.embedding[...][tokens].astype(dtype)

        def block(block: Block, x: Array, state: LayerState | None, inputs: Inputs, depth: Array):
            x, state, measured = block(
                x, state, inputs, depth, segments_at_chunks=segments_at_chunks, health=health
            )
            return x, (state, measured)

        depth = jnp.arange(self.config.layers) / max(1, self.config.layers - 1)
        body = nnx.remat(block) if self.config.remat else block
        over_layers = nnx.scan(
            body,
            in_axes=(0, nnx.Carry, None if state is None else 0, None, 0),
            out_axes=(nnx.Carry, 0),
        )
        x, (state, measured) = over_layers(self.blocks, x, state, inputs, depth)
        x = self.norm(x)
        head = self.embedding[...].T if self.config.tie else self.head.kernel[...]
        logits = jnp.matmul(x, head.astype(dtype), preferred_element_type=jnp.float32)
        return logits, state, measured


def check_tokens(tokens: Array, vocab: int) -> Array:
    """Tokens as an array [B, T], T >= 1, of a vocabulary; `ConfigError` for what is none."""
    known = None if isinstance(tokens, Tracer) else np.asarray(tokens)
    tokens = jnp.asarray(tokens)
    require(
        tokens.ndim == 2 and tokens.shape[0] >= 1 and tokens.shape[1] >= 1,
        f"tokens have shape {tokens.shape}: they must be [B, T], with at least one token a row.",
    )
    require(
        jnp.issubdtype(tokens.dtype, jnp.integer),
        f"tokens have dtype {tokens.dtype}: they must be whole numbers.",
    )
    if known is not None:
        least, most = int(known.min()), int(known.max())
        require(
            least >= 0 and most < vocab,
            f"tokens lie in [{least}, {most}], but the model's vocabulary is [0, {vocab}).",
        )
    return tokens
