"""The perplexity of text: per word, token and byte, and by position in the text."""

import dataclasses
import itertools
import json
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import numpy as np

from miras.analysis.eval.continuations import score_texts
from miras.analysis.eval.row_reader import RowReader, make_reader
from miras.analysis.stream.token_stream import TokenStream
from miras.config import Config
from miras.data import Tokenizer, check_text
from miras.data.text.records import rows
from miras.data.text.remote import local_copy
from miras.data.text.sources import survey
from miras.data.text.splitting import text_blocks
from miras.errors import ConfigError
from miras.train import Run

EDGES = (1, *(64 * 4**n for n in range(8)))
"""First positions of the buckets: 1, 64, 256, 1k, ... 1M; the last bucket has no end."""

_AT_ONCE = 16  # batches of documents that are sorted by length together


@dataclasses.dataclass(frozen=True)
class Perplexity(Config):
    """Options of `miras eval RUN --task perplexity`.

    Attributes:
        over: "document" reads each file, or each row of a file of rows, from the initial state;
            "stream" reads all of them as one text, with a document start before each, so that
            positions count from the start of the first.
    """

    over: Literal["document", "stream"] = "document"


@dataclasses.dataclass
class TokenSums:
    """Sums over predicted tokens.

    Attributes:
        tokens: number of tokens; document starts are not counted.
        nats: -log p of the tokens.
        bytes: bytes of text that the tokens stand for.
    """

    tokens: int = 0
    nats: float = 0.0
    bytes: float = 0.0

    @property
    def perplexity(self) -> float:
        """exp(nats / tokens)."""
        return per(self.nats, self.tokens)

    @property
    def bits_per_byte(self) -> float:
        """nats / ln 2 / bytes."""
        return self.nats / math.log(2) / max(self.bytes, 1)


@dataclasses.dataclass
class PerplexityResults:
    """The perplexity of a run on a text.

    Attributes:
        run: the run's folder, as given.
        step: number of updates of the model.
        source: of the text.
        options: how it was read.
        documents: number of documents that are not empty.
        words: number of words between white space.
        buckets: of positions, as in `EDGES`.
    """

    run: str
    step: int
    source: str
    options: Perplexity
    documents: int = 0
    words: int = 0
    buckets: tuple[TokenSums, ...] = dataclasses.field(
        default_factory=lambda: tuple(TokenSums() for _ in EDGES)
    )

    @property
    def all(self) -> TokenSums:
        """All positions."""
        total = [dataclasses.astuple(bucket) for bucket in self.buckets]
        return TokenSums(*map(sum, zip(*total)))

    @property
    def word_perplexity(self) -> float:
        """exp(nats / words), as lm-eval's `word_perplexity`."""
        return per(self.all.nats, self.words)

    @property
    def byte_perplexity(self) -> float:
        """exp(nats / bytes)."""
        return per(self.all.nats, self.all.bytes)

    def add(self, positions: np.ndarray, logprobs: np.ndarray, sizes: np.ndarray) -> None:
        """Add tokens of text.

        Args:
            positions: [n] of the tokens, counted from 1.
            logprobs: [n], log p of the tokens.
            sizes: [n], bytes of each token.
        """
        places = np.searchsorted(EDGES, positions, side="right") - 1
        for n in np.unique(places):
            own, bucket = places == n, self.buckets[n]
            bucket.tokens += int(own.sum())
            bucket.nats -= float(logprobs[own].sum(dtype=np.float64))
            bucket.bytes += float(sizes[own].sum(dtype=np.float64))

    def to_json(self) -> str:
        """The results as JSON text; an infinite perplexity is null."""

        def plain(sums: TokenSums, **more: Any) -> dict[str, Any]:
            shares = {"perplexity": sums.perplexity, "bits_per_byte": sums.bits_per_byte}
            values = dataclasses.asdict(sums) | shares | more
            return {name: x if math.isfinite(x) else None for name, x in values.items()}

        per_word = {"word": self.word_perplexity, "byte": self.byte_perplexity}
        every = plain(self.all, **{f"{name}_perplexity": x for name, x in per_word.items()})
        buckets = [plain(sums, first=first) for first, sums in zip(EDGES, self.buckets)]
        values = {
            "task": {"kind": "perplexity", "over": self.options.over},
            "run": self.run,
            "step": self.step,
            "source": self.source,
            "documents": self.documents,
            "words": self.words,
            "all": every,
            "positions": [bucket for bucket in buckets if bucket["tokens"]],
        }
        return json.dumps(values, indent=2) + "\n"


def evaluate_perplexity(
    run: Run,
    source: str,
    options: Perplexity | None = None,
    *,
    name: str = "",
    progress: Callable[[int], None] = lambda tokens: None,
) -> PerplexityResults:
    """Measure the perplexity of all text of a source.

    Args:
        run: from `load_run`, trained on text.
        source: a file, folder or glob, as `data.source`.
        options: the defaults of `Perplexity` if not given.
        name: of the run, for the results.
        progress: called with the number of tokens that have been read.

    Raises:
        ConfigError: the run was not trained on text, or the source has none or cannot be read.
        Interrupted: between two pieces, see `miras.runtime.signals`.
    """
    check_text(run.config.data, "perplexity")
    found = PerplexityResults(name, run.step, source, options or Perplexity())
    texts = _texts(source, run.config.data.field, run.config.data.cache_dir)
    documents = _documents(found, run.tokenizer, texts)
    sizes, reader = run.tokenizer.byte_lengths, make_reader(run)
    if found.options.over == "stream":
        alone = RowReader(run.model, 1, reader.mesh)
        _read_stream(found, alone, documents, run.tokenizer, progress)
    else:
        while some := [
            np.concatenate(list(each))
            for each in itertools.islice(documents, _AT_ONCE * reader.rows)
        ]:
            for ids, logprobs in zip(some, score_texts(reader, some), strict=True):
                found.add(np.arange(1, len(ids)), logprobs, sizes[ids[1:]])
                progress(len(ids))
    if not found.all.tokens:
        raise ConfigError(f"--data {source!r} has no text: give a file with at least one token.")
    return found


def _read_stream(
    found: PerplexityResults,
    reader: RowReader,
    documents: Iterator[Iterator[np.ndarray]],
    tokenizer: Tokenizer,
    progress: Callable[[int], None],
) -> None:
    count, logits, state = 0, None, None
    for ids in itertools.chain.from_iterable(documents):
        read = reader.read([ids], logits, state)
        logits, state = read.logits, read.state
        text = ids != tokenizer.bos_id
        positions = count + np.flatnonzero(text)
        found.add(positions, read.logprobs[0][text], tokenizer.byte_lengths[ids[text]])
        count += len(ids)
        progress(len(ids))


def _documents(
    found: PerplexityResults, tokenizer: Tokenizer, texts: Iterable[Iterable[bytes]]
) -> Iterator[Iterator[np.ndarray]]:
    """The ids of each document that is not empty, which begins with the document start."""
    for parts in texts:
        counted = _counted(found, parts)
        first = next(counted, None)
        if first is not None:
            found.documents += 1
            whole = itertools.chain([first], counted)
            yield TokenStream(tokenizer, whole, starts_document=True).tokens()


def _counted(found: PerplexityResults, parts: Iterable[bytes]) -> Iterator[bytes]:
    """The parts of a document that are not empty; counts their words."""
    inside = False  # whether the text so far ends within a word
    for part in filter(None, parts):
        text = part.decode("utf-8", errors="replace")
        found.words += len(text.split()) - (inside and not text[0].isspace())
        inside = not text[-1].isspace()
        yield part


def _texts(source: str, field: str, cache: pathlib.Path) -> Iterator[Iterable[bytes]]:
    """The documents of a source, each in parts: files, or the rows of files of rows."""
    for file in survey(local_copy(source, cache), field).files:
        if file.rows and file.rows != "fasta":
            yield from ([text] for text in rows(file))
        else:
            yield text_blocks(file)


def per(nats: float, count: float) -> float:
    """exp(nats / count); infinite where that overflows."""
    mean = nats / max(count, 1)
    return math.exp(mean) if mean < 700 else math.inf
