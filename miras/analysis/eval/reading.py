"""Rows of any length read in pieces, with the memory carried from each to the next.

A model's answer is right where its likeliest token is the target at every target's position, the
targets before given. That is exact match under greedy decoding, which goes astray at the first
target that is not the likeliest and until there has read the same: so no token is decoded alone.
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
"""Tokens of each row read at a time, or a few less: a multiple of the memory's chunk."""

LOGITS = 2**26
"""As many are computed at a time at most, which are 256 MiB; but for a single row's piece."""

Read = Callable[[np.ndarray, Any, int], tuple[np.ndarray, Any]]
"""Tokens [B, T], the state before them (None at the start) and how many tokens will follow, to the
likeliest token after each, [B, T], and the state behind them."""


class Score(NamedTuple):
    """How much of one row's answer is right.

    Attributes:
        hits: targets that are right.
        targets: how many there are.
    """

    hits: int
    targets: int

    @property
    def exact(self) -> bool:
        """Whether all are."""
        return self.hits == self.targets


def reader(model: LanguageModel, vocab: int | None = None) -> Read:
    """Reading with a model; compiles once for each shape of a piece and of the state.

    Answers are ids below `vocab`, if it is given.
    """
    graphdef, params = nnx.split(model)

    @jax.jit
    def forward(params, tokens, state):
        logits, state = nnx.merge(graphdef, params)(tokens, state=state)
        return jnp.argmax(logits[..., :vocab], axis=-1), state

    def read(tokens: np.ndarray, state: Any, rest: int) -> tuple[np.ndarray, Any]:
        first = state is None
        likeliest, state = forward(params, jnp.asarray(tokens), state)
        return np.asarray(likeliest), reserve(state, rest) if first else state

    return read


def piece_of(align: int) -> int:
    """The tokens of a piece: a multiple of `align`, where a model's segments begin at no cost."""
    return max(1, PIECE // align) * align


def rows_of(piece: int, vocab: int) -> int:
    """The rows whose pieces' logits fit in `LOGITS`, at least one."""
    return max(1, LOGITS // (piece * vocab))


def score(read: Read, rows: Sequence[Example], piece: int) -> list[Score]:
    """Read rows of one length side by side, and compare what was predicted.

    Args:
        read: as `reader` gives it.
        rows: of the same length.
        piece: tokens to read at a time.
    """
    tokens = np.stack([row.inputs for row in rows])
    length = tokens.shape[1]
    hits = np.zeros(len(rows), int)
    state = None
    for start in range(0, length, piece):
        stop = min(start + piece, length)
        likeliest, state = read(tokens[:, start:stop], state, length - stop)
        for n, row in enumerate(rows):
            inside = (row.positions >= start) & (row.positions < stop)
            found = likeliest[n, row.positions[inside] - start]
            hits[n] += np.sum(found == row.targets[inside])
    return [Score(int(n), len(row.targets)) for n, row in zip(hits, rows)]
