"""How many answers of a task a model in training gives right.

A row's answer is right where the model's likeliest token is the target at all of the row's targets,
earlier ones given. This is exact match under greedy decoding: a greedy answer goes astray at the
first token that is not the likeliest, and up to there both have read the same. Rows far longer than
those trained on are the business of `miras.analysis.eval`.
"""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from miras.array_typing import Array
from miras.train.state import Params
from miras.train.step import Batch


class Answers(NamedTuple):
    """How well a model answers.

    Attributes:
        loss: nats per target.
        bits_per_byte: of the answers' text; a target of a task without text counts as one byte.
        accuracy: share of the targets that are right.
        exact_match: share of the rows of which all targets are right.
        rows: how many were answered.
    """

    loss: float
    bits_per_byte: float
    accuracy: float
    exact_match: float
    rows: int

    @property
    def summary(self) -> str:
        """In words."""
        return (
            f"exact match {self.exact_match:.3f}, token accuracy {self.accuracy:.3f} on held-out "
            "rows"
        )


class Counts(NamedTuple):
    """Sums over rows, which add up over batches."""

    nats: Array
    bytes: Array
    targets: Array
    hits: Array
    rows: Array
    exact: Array


def make_answers_step(
    graphdef: nnx.GraphDef, vocab: int | None = None
) -> Callable[[Params, Batch], Counts]:
    """A compiled `count(params, batch)`; answers are ids below `vocab`, if it is given."""

    def count(params: Params, batch: Batch) -> Counts:
        model = nnx.merge(graphdef, params)
        logits, _ = model(
            batch["inputs"], segment_ids=batch["segment_ids"], segments_at_chunks=True
        )
        mask, targets = batch["mask"], batch["targets"]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        right = jnp.argmax(logits[..., :vocab], axis=-1) == targets
        rows = jnp.any(mask, axis=1)
        return Counts(
            nats=jnp.sum(losses, where=mask),
            bytes=jnp.sum(batch["target_bytes"]),
            targets=jnp.sum(mask),
            hits=jnp.sum(mask & right),
            rows=jnp.sum(rows),
            exact=jnp.sum(rows & jnp.all(right | ~mask, axis=1)),
        )

    return jax.jit(count)


def evaluate_answers(
    step: Callable[[Params, Batch], Counts], params: Params, batches: Iterable[Batch]
) -> Answers:
    """Measure a model on batches of rows, at least one."""
    counts = [[float(x) for x in step(params, batch)] for batch in batches]
    nats, size, targets, hits, rows, exact = (sum(column) for column in zip(*counts, strict=True))
    return Answers(
        loss=nats / targets,
        bits_per_byte=nats / math.log(2) / size,
        accuracy=hits / targets,
        exact_match=exact / rows,
        rows=int(rows),
    )
