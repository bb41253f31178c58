"""The objective of `task=classify`: cross entropy of classes, accuracy and correlation."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array
from miras.layers import Health
from miras.models.classifier import Classifier, Pooling
from miras.models.config import LanguageModelConfig
from miras.models.objective import PLAIN_LOSS, Batch, Head, LossOptions, Objective, Score, Totals

OTHER_STRAND = "other_strand"
"""The array of a batch that holds the reverse complement of its inputs."""


class ClassCounts(NamedTuple):
    """Sums over rows, which can be added over batches.

    Attributes:
        nats: cross entropy.
        rows: number of rows.
        correct: rows whose most likely class is theirs.
        labelled: rows of each class.
        predicted: rows of which each class is the most likely one.
    """

    nats: Array
    rows: Array
    correct: Array
    labelled: tuple[Array, ...]
    predicted: tuple[Array, ...]


class Classified(NamedTuple):
    """How well a model classifies rows.

    Attributes:
        loss: cross entropy, nats per row.
        accuracy: share of rows whose most likely class is theirs.
        mcc: Matthews correlation coefficient, in [-1, 1]; 0 for a guess, also of the most frequent
            class.
        rows: number of rows.
    """

    loss: float
    accuracy: float
    mcc: float
    rows: int

    @property
    def summary(self) -> str:
        """One line for the log."""
        return (
            f"accuracy {self.accuracy:.4f}, correlation {self.mcc:.4f} on {self.rows:,} held-out "
            "rows"
        )

    @property
    def table(self) -> list[tuple[str, str]]:
        """The lines of `miras eval`."""
        return [
            ("held-out rows", f"{self.rows:,}"),
            ("accuracy", f"{self.accuracy:.4f}"),
            ("Matthews correlation", f"{self.mcc:.4f}"),
            ("cross entropy", f"{self.loss:.4f}"),
        ]


@dataclasses.dataclass(frozen=True)
class Classification(Objective):
    """Cross entropy of the class of each row.

    Attributes:
        classes: their number.
        pooling: of the features, see `Classifier`.
        both_strands: whether an evaluation takes the mean of the logits of both strands.
    """

    classes: int
    pooling: Pooling = "mean"
    both_strands: bool = False

    score = Score("accuracy", "accuracy", less_is_better=False)
    label = "cross entropy (nats)"
    rows = "rows"
    ends = ("class_head", "class_bias")

    def build(self, config: LanguageModelConfig, rngs: nnx.Rngs) -> nnx.Module:
        """A `Classifier`."""
        return Classifier(config, self.classes, rngs, self.pooling)

    def head(self, config: LanguageModelConfig, tokens: int) -> Head:
        """The logits of each row, and the sum over tokens that pools them."""
        pooling = 2.0 * tokens * config.width
        return Head(config.width, self.classes, by_token=False, others=pooling, masked=True)

    def loss(
        self, model: Any, batch: Batch, options: LossOptions = PLAIN_LOSS
    ) -> tuple[Array, Totals]:
        """The cross entropy, of the strand that the batch holds."""
        del options  # a row has few logits
        logits = model(batch["inputs"], mask=_present(batch))
        nats = jnp.sum(_nats(logits, batch["label"]), where=batch["mask"])
        return nats, Totals(nats, jnp.sum(batch["mask"], dtype=jnp.float32), jnp.zeros(()))

    def sums(self, model: Any, batch: Batch) -> ClassCounts:
        """The counts of a batch."""
        logits = model(batch["inputs"], mask=_present(batch))
        if self.both_strands:
            logits = (logits + model(batch[OTHER_STRAND], mask=_present(batch))) / 2
        mask, label = jnp.asarray(batch["mask"]), jnp.asarray(batch["label"])
        best = jnp.argmax(logits, axis=-1)

        def count(of: Array) -> tuple[Array, ...]:
            return tuple(jnp.sum(mask & (of == n)) for n in range(self.classes))

        return ClassCounts(
            nats=jnp.sum(_nats(logits, label), where=mask),
            rows=jnp.sum(mask),
            correct=jnp.sum(mask & (best == label)),
            labelled=count(label),
            predicted=count(best),
        )

    def result(self, sums: ClassCounts) -> Classified:
        """Shares of at least one row."""
        rows, correct = float(sums.rows), float(sums.correct)
        mcc = matthews_correlation(
            correct, [float(x) for x in sums.labelled], [float(x) for x in sums.predicted]
        )
        return Classified(float(sums.nats) / rows, correct / rows, mcc, int(rows))

    def observe(self, model: Any, batch: Batch) -> Health:
        """Measurements of the memories, [memory layers] each."""
        return model.observe(batch["inputs"], mask=_present(batch))[1]


def matthews_correlation(correct: float, labelled: list[float], predicted: list[float]) -> float:
    """Matthews correlation coefficient of any number of classes.

    With s rows, of which c are correct, t_k of class k and p_k predicted as class k,

        R = (c s - sum_k p_k t_k) / sqrt((s^2 - sum_k p_k^2) (s^2 - sum_k t_k^2))

    (Gorodkin, 2004, doi:10.1016/j.compbiolchem.2004.09.006, equation 8); 0 where the denominator is
    0, as if all rows are of one class.
    """
    rows = sum(labelled)
    above = correct * rows - sum(p * t for p, t in zip(predicted, labelled, strict=True))
    below = [rows**2 - sum(x * x for x in of) for of in (predicted, labelled)]
    return above / math.sqrt(below[0] * below[1]) if min(below) > 0 else 0.0


def _present(batch: Batch) -> Array:
    return jnp.asarray(batch["segment_ids"]) > 0


def _nats(logits: Array, label: Any) -> Array:
    """Cross entropy of each row, [B] float32."""
    chosen = jnp.take_along_axis(logits, jnp.asarray(label)[:, None], axis=-1)[:, 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen
