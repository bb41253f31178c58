"""Log-probabilities of continuations of contexts, and of whole texts.

A context that several continuations share is read once, and its state is copied for each of them.
Rows of similar lengths are read together.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np

from miras.analysis.eval.row_reader import RowReader
from miras.models import take

T = TypeVar("T")


class Continuation(NamedTuple):
    """A text and what follows it, as token ids.

    Attributes:
        context: int [n], n >= 1; it begins with the document start.
        tokens: int [m], whose log-probability is asked for.
    """

    context: np.ndarray
    tokens: np.ndarray


class Likelihood(NamedTuple):
    """How likely a continuation is.

    Attributes:
        logprob: log p(tokens | context), in nats.
        greedy: whether greedy decoding gives the tokens.
    """

    logprob: float
    greedy: bool


def score_continuations(
    reader: RowReader,
    pairs: Sequence[Continuation],
    progress: Callable[[int], None] = lambda count: None,
) -> list[Likelihood]:
    """The likelihood of each continuation, in the order given.

    Args:
        reader: of the model.
        pairs: contexts and continuations, in any order.
        progress: called with the number of continuations of each batch.
    """
    shared: dict[bytes, list[int]] = {}
    for n, pair in enumerate(pairs):
        shared.setdefault(np.asarray(pair.context, np.int32).tobytes(), []).append(n)
    found: dict[int, Likelihood] = {}
    groups = _longest_first(shared.values(), lambda numbers: len(pairs[numbers[0]].context))
    for some in _batches(groups, reader.rows):
        after = reader.read([pairs[numbers[0]].context for numbers in some])
        places = [(row, n) for row, numbers in enumerate(some) for n in numbers]
        places = _longest_first(places, lambda place: len(pairs[place[1]].tokens))
        for few in _batches(places, reader.rows):
            rows = np.array([row for row, _ in few] + [0] * (reader.rows - len(few)))
            texts = [pairs[n].tokens for _, n in few]
            read = reader.read(texts, jnp.take(after.logits, rows, axis=0), take(after.state, rows))
            for (_, n), logprobs, greedy in zip(few, read.logprobs, read.greedy, strict=True):
                found[n] = Likelihood(float(logprobs.sum(dtype=np.float64)), greedy)
            progress(len(few))
    return [found[n] for n in range(len(pairs))]


def score_texts(
    reader: RowReader,
    texts: Sequence[np.ndarray],
    progress: Callable[[int], None] = lambda count: None,
) -> list[np.ndarray]:
    """The log-probability of each token of each text, float32 [length - 1], in the order given.

    Args:
        reader: of the model; the state carries over a whole text, however long it is.
        texts: int arrays [length], which begin with the document start.
        progress: called with the number of texts of each batch.
    """
    found: dict[int, np.ndarray] = {}
    for some in _batches(_longest_first(range(len(texts)), lambda n: len(texts[n])), reader.rows):
        read = reader.read([texts[n] for n in some])
        found |= {n: logprobs[1:] for n, logprobs in zip(some, read.logprobs, strict=True)}
        progress(len(some))
    return [found[n] for n in range(len(texts))]


def _longest_first(items: Iterable[T], length: Callable[[T], int]) -> list[T]:
    return sorted(items, key=length, reverse=True)


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
