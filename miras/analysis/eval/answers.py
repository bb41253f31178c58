"""Scores a model's answers in rows of any length, read in pieces with the state carried over.

An answer is right if the most likely token equals the target at every target's position, given the
targets before it. That is exact match under greedy decoding: up to the first wrong token, greedy
decoding reads the same tokens. So no token is decoded one by one.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from miras.attention.cache import reserve
from miras.models import LanguageModel
from miras.tasks import Example

PIECE = 1024
"""Tokens per piece, rounded down to a multiple of the memory's chunk."""

LOGITS = 2**26
"""Maximum number of logits per call, 256 MiB; a single row may exceed it."""

Predict = Callable[[np.ndarray, Any, int], tuple[np.ndarray, Any]]
"""Maps tokens [B, T], the state before them (None at the start) and the number of tokens that will
follow to the most likely token after each, [B, T], and the state after them."""


class RowScore(NamedTuple):
    """The score of one row's answer.

    Attributes:
        hits: number of right targets.
        targets: number of targets.
        recall: share of the references in the greedy completion; None if it was not measured.
    """

    hits: int
    targets: int
    recall: float | None = None

    @property
    def exact(self) -> bool:
        """Whether all targets are right."""
        return self.hits == self.targets


def make_predictor(model: LanguageModel, vocab: int | None = None) -> Predict:
    """A `Predict` function of a model; compiles once for each shape of a piece and of the state.

    Args:
        model: the language model.
        vocab: predict only ids below it; any id if not given.
    """
    graphdef, params = nnx.split(model)

    @jax.jit
    def forward(params, tokens, state):
        logits, state = nnx.merge(graphdef, params)(tokens, state=state)
        return jnp.argmax(logits[..., :vocab], axis=-1), state

    def predict(tokens: np.ndarray, state: Any, rest: int) -> tuple[np.ndarray, Any]:
        first = state is None
        likeliest, state = forward(params, jnp.asarray(tokens), state)
        return np.asarray(likeliest), reserve(state, rest) if first else state

    return predict


def piece_length(align: int) -> int:
    """Tokens per piece: the largest multiple of `align` in `PIECE`, at least `align`."""
    return max(1, PIECE // align) * align


def rows_per_batch(piece: int, vocab: int) -> int:
    """Rows per call such that their logits fit in `LOGITS`, at least one."""
    return max(1, LOGITS // (piece * vocab))


def score_rows(predict: Predict, rows: Sequence[Example], piece: int) -> list[RowScore]:
    """Score rows of equal length, read side by side.

    Args:
        predict: from `make_predictor`.
        rows: of equal length.
        piece: tokens per call.
    """
    tokens = np.stack([row.inputs for row in rows])
    length = tokens.shape[1]
    hits = np.zeros(len(rows), int)
    state = None
    for start in range(0, length, piece):
        stop = min(start + piece, length)
        likeliest, state = predict(tokens[:, start:stop], state, length - stop)
        for n, row in enumerate(rows):
            inside = (row.positions >= start) & (row.positions < stop)
            found = likeliest[n, row.positions[inside] - start]
            hits[n] += np.sum(found == row.targets[inside])
    return [RowScore(int(n), len(row.targets)) for n, row in zip(hits, rows)]
