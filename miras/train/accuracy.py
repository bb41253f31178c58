"""The share of a task's answers that a model predicts correctly.

A row's answer is correct if the most likely token is the target at every target position, given the
earlier targets. This equals exact match under greedy decoding, which deviates at the first position
whose most likely token is not the target and has read the same tokens up to it.
`miras.analysis.eval` evaluates rows that are much longer than those trained on.
"""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array
from miras.train.predictions import predictions
from miras.train.state import Params
from miras.train.step import Batch


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


class AnswerCounts(NamedTuple):
    """Sums over rows, which can be added over batches."""

    nats: Array
    bytes: Array
    targets: Array
    hits: Array
    rows: Array
    exact: Array


def make_answers_step(
    graphdef: nnx.GraphDef, vocab: int | None = None, chunk: int | None = None
) -> Callable[[Params, Batch], AnswerCounts]:
    """A compiled `count(params, batch)`, in which the logits of all tokens never exist at once.

    Args:
        graphdef: the model's structure.
        vocab: predictions are restricted to ids below it.
        chunk: most tokens of a device whose logits exist at once; see `token_chunks.chunks_of`.
    """

    def count(params: Params, batch: Batch) -> AnswerCounts:
        model = nnx.merge(graphdef, params)
        ids = batch["segment_ids"]
        x = model.features(batch["inputs"], segment_ids=ids, segments_at_chunks=True)
        mask, targets = jnp.asarray(batch["mask"]), jnp.asarray(batch["targets"])
        losses, correct = predictions(x, model.head_rows(), targets, candidates=vocab, chunk=chunk)
        rows = jnp.any(mask, axis=1)
        return AnswerCounts(
            nats=jnp.sum(losses, where=mask),
            bytes=jnp.sum(batch["target_bytes"]),
            targets=jnp.sum(mask),
            hits=jnp.sum(mask & correct),
            rows=jnp.sum(rows),
            exact=jnp.sum(rows & jnp.all(correct | ~mask, axis=1)),
        )

    return jax.jit(count)


def evaluate_answers(
    step: Callable[[Params, Batch], AnswerCounts], params: Params, batches: Iterable[Batch]
) -> Answers:
    """Evaluate a model on one or more batches of rows."""
    counts = [[float(x) for x in step(params, batch)] for batch in batches]
    nats, size, targets, hits, rows, exact = (sum(column) for column in zip(*counts, strict=True))
    return Answers(
        loss=nats / targets,
        bits_per_byte=nats / math.log(2) / size,
        accuracy=hits / targets,
        exact_match=exact / rows,
        rows=int(rows),
    )
