"""The held-out text on which staleness is measured: the beginnings of a few long documents."""

import itertools
from typing import NamedTuple

import numpy as np

from miras.config import require
from miras.data import DataConfig, Tokenizer
from miras.data.loader import tokenize
from miras.data.packing import Batch
from miras.data.text.corpus import open_documents

TOKENS = 4096
LENGTH = 1024
_LOOK_AT = 10_000


class Text(NamedTuple):
    """One document a row, read from its start, so that no memory starts anew inside a row.

    Attributes:
        batch: as `miras.data.make_loader` gives it.
        rows: documents.
        length: tokens of each.
    """

    batch: Batch
    rows: int
    length: int


def held_out(data: DataConfig, tokenizer: Tokenizer, length: int, exactly: bool = True) -> Text:
    """The first held-out documents that are long enough, as many as make `TOKENS` or there are.

    Args:
        data: whose `source` and `validation` say what is held out.
        tokenizer: the model's.
        length: tokens of each.
        exactly: whether nothing shorter will do; else the longest is taken where all are shorter.

    Raises:
        ConfigError: for text that cannot be read or that is too short.
    """
    require(length >= 1, f"length={length} must be at least 1.")
    documents = open_documents(data, "validation")
    found, longest, wanted = [], None, length
    for n in range(min(len(documents), _LOOK_AT)):
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
    return Text(batch, len(found), wanted)


def fitting(chunks: tuple[int, ...], length: int) -> tuple[int, ...]:
    """The chunks that lie in a text; a longer one would be the same as all of it."""
    return tuple(itertools.takewhile(lambda chunk: chunk <= length, sorted(chunks)))
