"""LanguageModel: Llama's macro-architecture around memory and attention layers."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer

from miras.array_typing import Array
from miras.config import require
from miras.engine.masking import where
from miras.errors import ConfigError
from miras.layers import Health
from miras.layers.fast_weights import Measure
from miras.layers.param import LinearGeneral, normal
from miras.models.backbone import Backbone
from miras.models.blocks import BlockInputs
from miras.models.config import LanguageModelConfig
from miras.models.embedding import lookup
from miras.models.state import ModelState, check_fits, state_spec


class LanguageModel(Backbone):
    """A language model: embedding, blocks in one scan, norm, head.

    Every parameter is float32 and names its logical axes: vocab, embed, heads, mlp, layers.

    Args:
        config: of the model.
        rngs: stream `params`.
    """

    def __init__(self, config: LanguageModelConfig, rngs: nnx.Rngs):
        std = config.width**-0.5  # logits of unit variance after the tied head
        self.embedding = normal(rngs, (config.vocab, config.width), ("vocab", "embed"), std)
        super().__init__(config, rngs)
        if not config.tie:
            self.head = LinearGeneral((config.width, config.vocab), ("embed", "vocab"), rngs)

    def __call__(
        self,
        tokens: Array,
        *,
        segment_ids: Array | None = None,
        mask: Array | None = None,
        state: ModelState | None = None,
        segments_at_chunks: bool = False,
    ) -> tuple[Array, ModelState]:
        """Compute the logits of each next token.

        Args:
            tokens: [B, T] int, in [0, vocab).
            segment_ids: [B, T] int; memories and convolutions are reset where it changes.
            mask: [B, T] bool, False for padding, anywhere in a row; None if there is none. The
                logits and the state are those of the row without padding; logits at padding are 0.
            state: to continue from, of an earlier call or `init_state`; the initial one if None.
            segments_at_chunks: promise that segments begin at multiples of `config.align` only, as
                the data pipeline ensures; compiles a smaller program.

        Returns:
            Logits [B, T, vocab] float32, and the state after the last token.
        """
        inputs = BlockInputs(segment_ids, mask)
        logits, state, _ = self._forward(tokens, inputs, state, segments_at_chunks, health=False)
        return logits, state

    def observe(
        self,
        tokens: Array,
        *,
        segment_ids: Array | None = None,
        mask: Array | None = None,
        state: ModelState | None = None,
        segments_at_chunks: bool = False,
    ) -> tuple[Array, ModelState, Health]:
        """As `__call__`, with the memories' health over the call, leaves [memory layers].

        A gate that the block of a layer does not have is NaN there (`config.memory_gates`).
        """
        inputs = BlockInputs(segment_ids, mask)
        found = self._forward(tokens, inputs, state, segments_at_chunks, health=True)
        logits, state, health = found
        assert health is not None
        return logits, state, health

    def features(
        self,
        tokens: Array,
        *,
        segment_ids: Array | None = None,
        mask: Array | None = None,
        segments_at_chunks: bool = False,
    ) -> Array:
        """What `__call__` multiplies with the head: [B, T, width], in `config.dtype`."""
        inputs = BlockInputs(segment_ids, mask)
        return self._features(tokens, inputs, None, segments_at_chunks, health=False)[0]

    def head_rows(self) -> Array:
        """The head: one row per token of the vocabulary, [vocab, width]."""
        return self.embedding[...] if self.config.tie else self.head.kernel[...].T

    def measure_memories(
        self, tokens: Array, state: ModelState, measure: Measure
    ) -> tuple[Array, ModelState, tuple[Any, ...]]:
        """As `__call__`, with the result of `measure` for each block of the pattern with a memory.

        Their leaves are [groups, ...]; the blocks are `config.memory_blocks`.
        """
        return self._forward(tokens, BlockInputs(None, None), state, False, health=measure)

    def _forward(
        self,
        tokens: Array,
        inputs: BlockInputs,
        state: ModelState | None,
        segments_at_chunks: bool,
        health: bool | Measure,
    ) -> tuple[Array, ModelState, Any]:
        x, state, found = self._features(tokens, inputs, state, segments_at_chunks, health)
        head = self.head_rows().T.astype(x.dtype)
        logits = jnp.matmul(x, head, preferred_element_type=jnp.float32)
        if inputs.mask is not None:
            logits = where(jnp.asarray(inputs.mask), logits, 0)
        return logits, state, found

    def _features(
        self,
        tokens: Array,
        inputs: BlockInputs,
        state: ModelState | None,
        segments_at_chunks: bool,
        health: bool | Measure,
    ) -> tuple[Array, ModelState, Any]:
        dtype = jnp.dtype(self.config.dtype)
        tokens, inputs = check_inputs(tokens, inputs, self.config.vocab)
        if state is not None:
            check_state(self, state)
            check_fits(state, tokens.shape)
        x = lookup(self.embedding[...], tokens, dtype)
        return self.apply_blocks(
            x, inputs, state, segments_at_chunks=segments_at_chunks, health=health
        )


def check_state(model: LanguageModel, state: ModelState) -> None:
    """Raise `ConfigError` for a state of another model."""
    require(
        isinstance(state, ModelState) and state_spec(state) == _state_spec(model.config),
        "state is not of this model, whose rule, chunk, layers or sizes differ: give a state from "
        "this model's init_state, prefill or decode_step.",
    )


@functools.lru_cache(maxsize=16)
def _state_spec(config: LanguageModelConfig):
    return state_spec(nnx.eval_shape(lambda: LanguageModel(config, nnx.Rngs(0)).init_state(1)))


def check_inputs(tokens: Array, inputs: BlockInputs, vocab: int) -> tuple[Array, BlockInputs]:
    """Tokens, segment ids and mask as arrays [B, T]; raises ConfigError for wrong shapes."""
    given = inputs.segment_ids, inputs.mask
    ids, mask = (None if x is None else jnp.asarray(x) for x in given)
    tokens = check_tokens(tokens, vocab, mask)
    for name, x, kind in (("segment_ids", ids, jnp.integer), ("mask", mask, jnp.bool)):
        require(
            x is None or x.shape == tokens.shape,
            f"{name} has shape {getattr(x, 'shape', None)}: it must have the shape of the tokens, "
            f"{tokens.shape}.",
        )
        require(
            x is None or jnp.issubdtype(x.dtype, kind),
            f"{name} has dtype {getattr(x, 'dtype', None)}: it must be "
            f"{'bool' if name == 'mask' else 'integer'}.",
        )
    return tokens, BlockInputs(ids, mask)


def check_tokens(tokens: Array, vocab: int, mask: Array | None = None) -> Array:
    """Tokens as an array [B, T], T >= 1, in [0, vocab); raises ConfigError for others.

    Padding may have any id, and becomes 0.
    """
    tokens = as_rows(tokens)
    if mask is not None and mask.shape == tokens.shape and mask.dtype == bool:
        tokens = jnp.where(mask, tokens, 0)
    if not isinstance(tokens, Tracer):
        known = np.asarray(tokens)
        least, most = int(known.min()), int(known.max())
        require(
            least >= 0 and most < vocab,
            f"tokens lie in [{least}, {most}], but the model's vocabulary is [0, {vocab}).",
        )
    return tokens


def as_rows(tokens: Any) -> Array:
    """Tokens as an integer array [B, T], T >= 1; raises ConfigError for others."""
    if not isinstance(tokens, jax.Array):
        try:
            tokens = np.asarray(tokens)
        except ValueError as error:
            raise ConfigError(
                "tokens are rows that differ in length: pad them to one length, and give `prefill` "
                "a mask [B, T] that is False for padding."
            ) from error
    require(
        tokens.ndim == 2 and tokens.shape[0] >= 1 and tokens.shape[1] >= 1,
        f"tokens have shape {tokens.shape}: they must be [B, T], with at least one token per row.",
    )
    known = jnp.asarray(tokens[:0]) if tokens.dtype.kind in "bfc" else tokens  # the dtype in jax
    require(
        jnp.issubdtype(tokens.dtype, jnp.integer),
        f"tokens have dtype {known.dtype}: they must be whole numbers.",
    )
    if isinstance(tokens, np.ndarray) and tokens.dtype.itemsize > 4:  # jax would wrap around
        least = max(np.iinfo(np.int32).min, np.iinfo(tokens.dtype).min)
        tokens = np.clip(tokens, least, np.iinfo(np.int32).max).astype(np.int32)
    return jnp.asarray(tokens)
