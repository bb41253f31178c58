"""Classifier: a class of each row of tokens, from the pooled features of its blocks."""

from typing import Literal

import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array
from miras.config import require
from miras.layers import Health
from miras.layers.param import LinearGeneral, normal, param
from miras.models.backbone import Backbone
from miras.models.blocks import BlockInputs
from miras.models.config import LanguageModelConfig
from miras.models.embedding import lookup
from miras.models.language_model import check_inputs

Pooling = Literal["mean", "last"]


class Classifier(Backbone):
    """A classifier of rows: embedding, blocks, norm, pooling over the tokens, linear head.

    With the features x_t of the tokens t that the mask m_t has, and n = sum_t m_t,

        p = sum_t m_t x_t / n   ("mean"),       p = x_t at the last t with m_t = 1   ("last"),
        logits = p W + b.

    Embedding, blocks and norm are those of `LanguageModel`, so that a language model's parameters
    are an initialisation. The blocks read from left to right: "last" is the feature that has seen
    the whole row.

    Args:
        config: of the blocks.
        classes: number of classes, >= 2.
        rngs: stream `params`.
        pooling: see above.

    Raises:
        ConfigError: fewer than 2 classes.
    """

    def __init__(
        self,
        config: LanguageModelConfig,
        classes: int,
        rngs: nnx.Rngs,
        pooling: Pooling = "mean",
    ):
        require(classes >= 2, f"classes={classes} must be at least 2.")
        std = config.width**-0.5
        self.embedding = normal(rngs, (config.vocab, config.width), ("vocab", "embed"), std)
        super().__init__(config, rngs)
        self.pooling: Pooling = pooling
        self.class_head = LinearGeneral((config.width, classes), ("embed", None), rngs)
        self.class_bias = param(jnp.zeros(classes), (None,))

    def __call__(self, tokens: Array, *, mask: Array | None = None) -> Array:
        """Compute the logits of the classes of rows.

        Args:
            tokens: [B, T] int, in [0, vocab).
            mask: [B, T] bool, False for padding, anywhere in a row; None if there is none. The
                logits are those of the row without padding; those of a row of padding alone are b.

        Returns:
            Logits [B, classes] float32.
        """
        return self._forward(tokens, mask, health=False)[0]

    def observe(self, tokens: Array, *, mask: Array | None = None) -> tuple[Array, Health]:
        """As `__call__`, with the memories' health over the rows, leaves [memory layers]."""
        logits, health = self._forward(tokens, mask, health=True)
        assert health is not None
        return logits, health

    def _forward(
        self, tokens: Array, mask: Array | None, health: bool
    ) -> tuple[Array, Health | None]:
        tokens, inputs = check_inputs(tokens, BlockInputs(None, mask), self.config.vocab)
        x = lookup(self.embedding[...], tokens, jnp.dtype(self.config.dtype))
        x, _, found = self.apply_blocks(x, inputs, health=health)
        present = jnp.ones(tokens.shape, bool) if inputs.mask is None else inputs.mask
        weights = pooling_weights(present, self.pooling)
        pooled = jnp.einsum("bt,btd->bd", weights, x.astype(weights.dtype))
        return self.class_head(pooled) + self.class_bias[...], found


def pooling_weights(mask: Array, pooling: Pooling) -> Array:
    """The weight of each token in the pooled feature, [B, T] float32; of a mask [B, T] bool."""
    if pooling == "last":
        place = jnp.arange(mask.shape[1])
        last = jnp.max(jnp.where(mask, place, -1), axis=1, keepdims=True)
        return (place == last).astype(jnp.float32)
    count = jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1)
    return mask.astype(jnp.float32) / count
