"""The objective of text: a language model that predicts each next token, in bits per byte."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array
from miras.models import LanguageModel, LanguageModelConfig
from miras.models.objective import PLAIN_LOSS, Batch, Head, LossOptions, Objective, Score, Totals
from miras.train.loss import cross_entropy


class HeldOut(NamedTuple):
    """How well a model predicts text.

    Attributes:
        loss: nats per token.
        bits_per_byte: sum(nats) / ln 2 / sum(bytes), which is comparable across tokenizers.
        perplexity: exp(loss), per token.
        tokens: number of predicted tokens.
    """

    loss: float
    bits_per_byte: float
    perplexity: float
    tokens: int

    @property
    def summary(self) -> str:
        """One line for the log."""
        return f"{self.bits_per_byte:.3f} bits per byte on held-out text"

    @property
    def table(self) -> list[tuple[str, str]]:
        """The lines of `miras eval`."""
        return [
            ("held-out tokens", f"{self.tokens:,}"),
            ("bits per byte", f"{self.bits_per_byte:.4f}"),
            ("perplexity per token", f"{self.perplexity:.4f}"),
        ]


class LanguageModelling(Objective):
    """Cross entropy of each next token of text; see `miras.train.loss`."""

    score = Score("bits_per_byte", "bits per byte", less_is_better=True)
    curve = "bits_per_byte"
    label = "bits per byte"
    rows = "text"
    prints_bits = True
    ends = ("head",)

    def build(self, config: LanguageModelConfig, rngs: nnx.Rngs) -> nnx.Module:
        """A `LanguageModel`."""
        return LanguageModel(config, rngs)

    def head(self, config: LanguageModelConfig, tokens: int) -> Head:
        """The logits of each token."""
        del tokens
        return Head(config.width, config.vocab, by_token=True)

    def loss(
        self, model: Any, batch: Batch, options: LossOptions = PLAIN_LOSS
    ) -> tuple[Array, Totals]:
        """Without z-loss, the negative log likelihood in nats."""
        x = model.features(
            batch["inputs"], segment_ids=batch["segment_ids"], segments_at_chunks=True
        )
        targets, mask = jnp.asarray(batch["targets"]), jnp.asarray(batch["mask"])
        sums: Any = cross_entropy(x, model.head_rows(), targets, mask, options)
        objective, nats = sums
        count = jnp.sum(mask, dtype=jnp.float32)
        return objective, Totals(nats, count, jnp.sum(batch["target_bytes"]))

    def sums(self, model: Any, batch: Batch) -> Any:
        """The totals; each target counts once."""
        return self.loss(model, batch)[1]

    def result(self, sums: Totals) -> HeldOut:
        """Means over tokens and bytes."""
        nats, targets, size = map(float, sums)
        loss = nats / max(targets, 1)
        bits = nats / math.log(2) / max(size, 1)
        perplexity = math.exp(loss) if loss < 700 else math.inf  # exp(710) overflows
        return HeldOut(loss, bits, perplexity, int(targets))


TEXT = LanguageModelling()
