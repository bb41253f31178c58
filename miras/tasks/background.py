"""An endless stream of background sentences, and rows of them with facts in between."""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from miras.config import require
from miras.data.task import Documents, Example, check_length
from miras.errors import ConfigError

if TYPE_CHECKING:
    from miras.data.tokenizers.base import Tokenizer

# Up to the end of a sentence or a line, at most about 400 characters.
_SENTENCE = re.compile(r"\s*\S(?:.{0,400}?(?:(?<=[.!?])\s|\n)|.{0,400})", re.DOTALL)


class Question(NamedTuple):
    """The text that is inserted into the background and added around it.

    Attributes:
        opening: before the background.
        facts: within the background, in this order.
        text: after the background, up to the answer.
        answer: what the model must predict.
        distractors: within the background at random places, in this order, whatever the depth.
    """

    opening: str
    facts: tuple[str, ...]
    text: str
    answer: str
    distractors: tuple[str, ...] = ()


def sentences(documents: Documents, random: np.random.Generator) -> Iterator[str]:
    """An endless stream of sentences or lines of documents, with the white space around them.

    It starts at a random sentence of a random document and continues in the order of the documents.

    Raises:
        ConfigError: all documents are empty.
    """
    first = int(random.integers(len(documents)))
    found = split_sentences(documents[first])
    found = found[int(random.integers(len(found))) :] if found else found
    empty = 0
    while empty <= len(documents):
        yield from found
        empty = 0 if found else empty + 1
        first = (first + 1) % len(documents)
        found = split_sentences(documents[first])
    raise ConfigError("the background text has no words: give other text with --data.")


def split_sentences(document: bytes) -> list[str]:
    """The sentences or lines of a document; each ends in white space."""
    text = document.decode("utf-8", errors="replace").rstrip()
    found = _SENTENCE.findall(text + "\n")
    return [piece if piece[-1].isspace() else piece + " " for piece in found]


def make_row(
    question: Question,
    background: Iterator[str],
    tokenizer: "Tokenizer",
    random: np.random.Generator,
    length: int,
    depth: float | None,
) -> Example:
    """A row of text: opening, background with the facts in it, question, answer.

    The text including the answer has exactly `length` tokens. The inputs are the document start and
    the text without its last token. The first sentence of the background is truncated to fit. Facts
    are inserted between sentences: all of them nearest to the depth, or in order at random places.

    Args:
        question: the inserted text.
        background: an endless stream of sentences.
        tokenizer: of the run; each part is encoded separately.
        random: draws the places of facts without a depth.
        length: number of tokens.
        depth: of the facts, in [0, 1]; None scatters them.

    Raises:
        ConfigError: the question does not fit in the length.
    """
    opening, text, answer = map(
        tokenizer.encode, (question.opening, question.text, question.answer)
    )
    require(
        len(answer) > 0, f"the answer {question.answer!r} has no tokens: use another tokenizer."
    )
    facts = [tokenizer.encode(fact) for fact in question.facts]
    others = [tokenizer.encode(fact) for fact in question.distractors]
    fixed = sum(map(len, (opening, *facts, *others, text, answer)))
    check_length(length, fixed, "its question, facts and answer")
    taken = _take(background, tokenizer, length - fixed)
    context = _insert_facts(taken, facts, others, random, depth)
    return text_example([opening, *context, text], answer, tokenizer.bos_id)


def text_example(parts: Sequence[np.ndarray], answer: np.ndarray, start: int) -> Example:
    """A row of text that ends in an answer, whose tokens are the targets.

    Args:
        parts: ids of the text before the answer.
        answer: ids of the answer, at least one.
        start: id of the document start.
    """
    ids = np.concatenate([*parts, answer]).astype(np.int32)
    first = len(ids) - len(answer)
    return Example(
        np.append(np.int32(start), ids[:-1]),
        np.arange(first, len(ids), dtype=np.int32),
        ids[first:],
    )


def _take(background: Iterator[str], tokenizer: "Tokenizer", room: int) -> list[np.ndarray]:
    """The next sentences, with exactly `room` tokens in total."""
    found: list[np.ndarray] = []
    while room > 0:
        ids = tokenizer.encode(next(background))
        if len(ids):
            found.append(ids)
            room -= len(ids)
    extra = -room
    while extra:  # truncate the start, so that the background ends with a whole sentence
        found[0], extra = found[0][extra:], max(0, extra - len(found[0]))
        found = found if len(found[0]) else found[1:]
    return found


def _insert_facts(
    background: Sequence[np.ndarray],
    facts: Sequence[np.ndarray],
    distractors: Sequence[np.ndarray],
    random: np.random.Generator,
    depth: float | None,
) -> list[np.ndarray]:
    """The background with the facts and the distractors between its sentences."""
    ends = np.cumsum([0, *map(len, background)])
    if depth is None:
        places = np.sort(random.integers(len(ends), size=len(facts)))
    else:
        places = np.full(len(facts), np.argmin(np.abs(ends - depth * ends[-1])))
    inserted: list[list[np.ndarray]] = [[] for _ in ends]
    for fact, place in zip(facts, places):
        inserted[place].append(fact)
    if distractors:
        for fact, place in zip(
            distractors, np.sort(random.integers(len(ends), size=len(distractors)))
        ):
            inserted[place].append(fact)
    return [piece for n, some in enumerate(inserted) for piece in (*some, *background[n : n + 1])]
