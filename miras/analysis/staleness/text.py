"""The held-out text on which staleness is measured: the starts of a few long documents."""

import itertools
from typing import NamedTuple

import numpy as np

from miras.config import require
from miras.data import DataConfig, Tokenizer
from miras.data.rows import Batch
from miras.data.text.corpus import open_documents
from miras.data.tokenized import tokenize

TOKENS = 4096
LENGTH = 1024
_MAX_DOCUMENTS = 10_000


class HeldOutText(NamedTuple):
    """One document per row, read from its start, so that no memory is reset within a row.

    Attributes:
        batch: as from `miras.data.make_loader`.
        rows: number of documents.
        length: tokens per document.
    """

    batch: Batch
    rows: int
    length: int


def held_out(
    data: DataConfig, tokenizer: Tokenizer, length: int, exactly: bool = True
) -> HeldOutText:
    """The first held-out documents that are long enough, up to `TOKENS` tokens.

    Args:
        data: its `source` and `validation` define the held-out text.
        tokenizer: of the model.
        length: tokens per document.
        exactly: raise if all documents are shorter; otherwise the longest is taken.

    Raises:
        ConfigError: for text that cannot be read or that is too short.
    """
    require(length >= 1, f"length={length} must be at least 1.")
    documents = open_documents(data, "validation")
    found, longest, wanted = [], None, length
    for n in range(min(len(documents), _MAX_DOCUMENTS)):
        document = tokenize(documents[n], tokenizer)
        size = len(document.byte_lengths)
        if longest is None or size > len(longest.byte_lengths):
            longest = document
        if size >= wanted:
            found.append(document)
        if len(found) * wanted >= TOKENS:
            break
    size = 0 if longest is None else len(longest.byte_lengths)
    if longest is not None and not found and not exactly:
        found, wanted = [longest], size
    require(
        bool(found) and size > 0,
        f"the held-out text of data source {data.source!r} has no document of --length "
        f"{wanted} tokens, the longest has {size}: use --length {size} or give more text."
        if size
        else f"the held-out text of data source {data.source!r} is empty: give more text.",
    )
    tokens = np.stack([d.tokens[: wanted + 1] for d in found]).astype(np.int32)
    shape = (len(found), wanted)
    batch = {
        "inputs": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "segment_ids": np.ones(shape, np.int32),
        "mask": np.ones(shape, bool),
        "target_bytes": np.stack([d.byte_lengths[:wanted] for d in found]).astype(np.float32),
    }
    return HeldOutText(batch, len(found), wanted)


def fitting(chunks: tuple[int, ...], length: int) -> tuple[int, ...]:
    """The chunks that are not longer than the text; longer ones equal a single chunk."""
    return tuple(itertools.takewhile(lambda chunk: chunk <= length, sorted(chunks)))
