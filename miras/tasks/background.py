"""Background text in sentences, without end, and rows of it with facts between them."""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from miras.config import require
from miras.data.task import Documents, Example, check_length
from miras.errors import ConfigError

if TYPE_CHECKING:
    from miras.data.tokenizers.base import Tokenizer

# Up to the end of a sentence or a line; what has neither ends somewhere.
_SENTENCE = re.compile(r"\s*\S(?:.{0,400}?(?:(?<=[.!?])\s|\n)|.{0,400})", re.DOTALL)


class Question(NamedTuple):
    """What is put around and into the background.

    Attributes:
        opening: before the background.
        facts: within it, in this order.
        text: behind it, up to the answer.
        answer: what the model must say.
    """

    opening: str
    facts: tuple[str, ...]
    text: str
    answer: str


def sentences(documents: Documents, random: np.random.Generator) -> Iterator[str]:
    """Sentences or lines of documents, each with the white space around it, without end.

    They begin somewhere in a document drawn by chance and go on in the order of the documents.

    Raises:
        ConfigError: where no document has any.
    """
    first = int(random.integers(len(documents)))
    found = split(documents[first])
    found = found[int(random.integers(len(found))) :] if found else found
    silent = 0
    while silent <= len(documents):
        yield from found
        silent = 0 if found else silent + 1
        first = (first + 1) % len(documents)
        found = split(documents[first])
    raise ConfigError("the background text has no words: give other text with --data.")


def split(document: bytes) -> list[str]:
    """A document's sentences or lines; each ends in white space."""
    text = document.decode("utf-8", errors="replace").rstrip()
    found = _SENTENCE.findall(text + "\n")
    return [piece if piece[-1].isspace() else piece + " " for piece in found]


def row(
    question: Question,
    background: Iterator[str],
    tokenizer: "Tokenizer",
    random: np.random.Generator,
    length: int,
    depth: float | None,
) -> Example:
    """A row of text: opening, background with the facts in it, question, answer.

    The text has exactly `length` tokens, its answer among them; before it stands the document
    start, and the answer's last token is not read. The first sentence of the background is cut to
    fit. Facts stand between sentences: all at the place nearest to the depth, or each at one
    drawn by chance, in order.

    Args:
        question: what to put in.
        background: sentences, without end.
        tokenizer: whose tokens to count; each part is encoded by itself.
        random: draws the places of facts without a depth.
        length: tokens.
        depth: in [0, 1], of the facts; None scatters them.

    Raises:
        ConfigError: for a length in which the question does not fit.
    """
    opening, text, answer = map(
        tokenizer.encode, (question.opening, question.text, question.answer)
    )
    require(
        len(answer) > 0, f"the answer {question.answer!r} has no tokens: use another tokenizer."
    )
    facts = [tokenizer.encode(fact) for fact in question.facts]
    fixed = sum(map(len, (opening, *facts, text, answer)))
    check_length(length, fixed, "its question, facts and answer")
    context = _place(_fill(background, tokenizer, length - fixed), facts, random, depth)
    ids = np.concatenate([opening, *context, text, answer]).astype(np.int32)
    return Example(
        np.append(np.int32(tokenizer.bos_id), ids[:-1]),
        np.arange(length - len(answer), length, dtype=np.int32),
        ids[length - len(answer) :],
    )


def _fill(background: Iterator[str], tokenizer: "Tokenizer", room: int) -> list[np.ndarray]:
    """Sentences of exactly so many tokens together."""
    found: list[np.ndarray] = []
    while room > 0:
        ids = tokenizer.encode(next(background))
        if len(ids):
            found.append(ids)
            room -= len(ids)
    extra = -room
    while extra:  # cut at the start, so that what follows the background follows a whole sentence
        found[0], extra = found[0][extra:], max(0, extra - len(found[0]))
        found = found if len(found[0]) else found[1:]
    return found


def _place(
    background: Sequence[np.ndarray],
    facts: Sequence[np.ndarray],
    random: np.random.Generator,
    depth: float | None,
) -> list[np.ndarray]:
    """The background with the facts between its sentences."""
    ends = np.cumsum([0, *map(len, background)])
    if depth is None:
        places = np.sort(random.integers(len(ends), size=len(facts)))
    else:
        places = np.full(len(facts), np.argmin(np.abs(ends - depth * ends[-1])))
    return [
        piece
        for n in range(len(ends))
        for piece in (
            *(fact for fact, place in zip(facts, places) if place == n),
            *background[n : n + 1],
        )
    ]
