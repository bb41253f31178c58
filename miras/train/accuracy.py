"""The share of a task's answers that a model predicts correctly.

A row's answer is correct if the most likely token is the target at every target position, given the
earlier targets. This equals exact match under greedy decoding, which deviates at the first position
whose most likely token is not the target and has read the same tokens up to it.
`miras.analysis.eval` evaluates rows that are much longer than those trained on.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax.numpy as jnp

from miras.array_typing import Array
from miras.models.objective import Batch, Score
from miras.train.language_modelling import LanguageModelling
from miras.train.predictions import predictions


class Answers(NamedTuple):
    """How well a model answers a task.

    Attributes:
        loss: nats per target.
        bits_per_byte: of the answers; a target of a task without text counts as one byte.
        accuracy: share of the targets that are predicted correctly.
        exact_match: share of the rows whose targets are all predicted correctly.
        rows: number of rows.
    """

    loss: float
    bits_per_byte: float
    accuracy: float
    exact_match: float
    rows: int

    @property
    def summary(self) -> str:
        """One line for the log."""
        return (
            f"exact match {self.exact_match:.3f}, token accuracy {self.accuracy:.3f} on held-out "
            "rows"
        )

    @property
    def table(self) -> list[tuple[str, str]]:
        """The lines of `miras eval`."""
        return [
            ("held-out rows", f"{self.rows:,}"),
            ("exact match", f"{self.exact_match:.4f}"),
            ("token accuracy", f"{self.accuracy:.4f}"),
        ]


class AnswerCounts(NamedTuple):
    """Sums over rows, which can be added over batches."""

    nats: Array
    bytes: Array
    targets: Array
    hits: Array
    rows: Array
    exact: Array


@dataclasses.dataclass(frozen=True)
class Answering(LanguageModelling):
    """Cross entropy of the answers, and the share that is right.

    The logits of all tokens never exist at once.

    Attributes:
        vocab: predictions are restricted to ids below it; None is all.
        chunk: most tokens of a device whose logits exist at once; see `token_chunks.chunks_of`.
    """

    vocab: int | None = None
    chunk: int | None = None

    score = Score("accuracy", "token accuracy", less_is_better=False)
    rows = "answers"
    prints_bits = False

    def sums(self, model: Any, batch: Batch) -> AnswerCounts:
        """The counts of a batch."""
        ids = batch["segment_ids"]
        x = model.features(batch["inputs"], segment_ids=ids, segments_at_chunks=True)
        mask, targets = jnp.asarray(batch["mask"]), jnp.asarray(batch["targets"])
        losses, correct = predictions(
            x, model.head_rows(), targets, candidates=self.vocab, chunk=self.chunk
        )
        rows = jnp.any(mask, axis=1)
        return AnswerCounts(
            nats=jnp.sum(losses, where=mask),
            bytes=jnp.sum(batch["target_bytes"]),
            targets=jnp.sum(mask),
            hits=jnp.sum(mask & correct),
            rows=jnp.sum(rows),
            exact=jnp.sum(rows & jnp.all(correct | ~mask, axis=1)),
        )

    def result(self, sums: AnswerCounts) -> Answers:
        """Shares of at least one row."""
        nats, size, targets, hits, rows, exact = map(float, sums)
        return Answers(
            loss=nats / targets,
            bits_per_byte=nats / math.log(2) / size,
            accuracy=hits / targets,
            exact_match=exact / rows,
            rows=int(rows),
        )
