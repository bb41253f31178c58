"""`make_loader`: the iterator of batches that a ``DataConfig`` describes.

It connects ``corpus`` (documents), ``tokenizers`` (ids), ``packing`` (rows) and ``rows`` (batches);
rows of tasks are in ``task_loader``, and those that were packed before in ``prepared``.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import grain

from miras.config import FrozenMapping
from miras.data.config import DataConfig
from miras.data.layout import row_layout
from miras.data.mixture import Source, mix
from miras.data.packing import PackedRows, PackingSpec
from miras.data.prepared.layout import is_prepared
from miras.data.prepared.rows import prepared_rows
from miras.data.rows import Batch, RowBatches, RowStream
from miras.data.task_loader import task_rows
from miras.data.text.corpus import open_documents
from miras.data.text.documents import DocumentSource
from miras.data.tokenized import tokenize
from miras.data.tokenizers.base import Tokenizer
from miras.data.tokenizers.make_tokenizer import make_tokenizer
from miras.errors import ConfigError

_LANES = 128  # enough that consecutive batches rarely share a document


def make_loader(
    config: DataConfig,
    split: str,
    *,
    align: int,
    rows: Sequence[int] | None = None,
    epochs: int | None = None,
    shuffle: bool | None = None,
) -> grain.DatasetIterator[Batch]:
    """Returns an iterator of batches whose position can be saved and restored.

    A batch is a dict of arrays [len(rows), sequence]: ``inputs`` and ``targets`` int32;
    ``segment_ids`` int32, 1 and up for the documents inside a row, changing only at multiples of
    ``align``, and 0 where a row has nothing more; ``mask`` bool, where the target counts;
    ``target_bytes`` float32, the bytes of text of the target, 0 where masked out. Bits per byte are
    ``sum(nll * mask) / ln 2 / sum(target_bytes)``.

    ``get_state`` and ``set_state`` save and restore the exact position, and the iterator is a valid
    item of ``ocp.save_checkpointables``.

    In a mixture (``config.mix``), each source has rows in the order that it has alone. A finite
    pass reads each source ``epochs`` times and ends with the last of them.

    A row of a task is one example, whose mask is true where the targets are tokens of the answer; a
    task may have other arrays, see `TaskConfig.layout`.

    The n-th batch is a function of the config, ``align``, ``epochs`` and ``shuffle`` alone. A
    process of several asks for the ``rows`` that its devices hold, and its position restores on any
    number of processes. Rows of a task are read only where wanted. The packer of text reads and
    tokenizes all documents on its way, since the place of a row depends on the rows before it.

    Args:
        config: what to read.
        split: ``"train"`` or ``"validation"``, or another one of a task.
        align: segments start at multiples of this; the chunk of the memory. It divides
            ``config.sequence``. Those of held-out rows start at multiples of
            ``config.held_out_align`` as well.
        rows: the rows of each batch that are returned, in this order; distinct numbers in
            [0, config.batch). All by default.
        epochs: passes over the documents; None is unlimited for train and 1 for validation.
        shuffle: whether each pass has a new seeded order; None is true for train only.

    Raises:
        ConfigError: an argument is out of range, the source or tokenizer cannot be used, the split
            has fewer than ``sequence`` tokens, or a row of the task does not fit in them.
    """
    layout = row_layout(config)
    _check(config, align, epochs)
    own = _own_rows(config, rows)
    train = split == "train"
    align = align if train else math.lcm(align, config.held_out_align)
    shuffle = train if shuffle is None else shuffle
    epochs = epochs if train or epochs is not None else 1
    stream, identity = _rows(config, split, align, epochs, shuffle)
    return RowBatches(stream, config.batch, layout, own, identity)


def _rows(
    config: DataConfig, split: str, align: int, epochs: int | None, shuffle: bool
) -> tuple[RowStream, dict[str, Any]]:
    """The rows of a config, and the identity of the data."""
    if config.task is not None:
        rows = config.task.rows(config, split, epochs=epochs, shuffle=shuffle)
        return rows or task_rows(config, split, epochs=epochs, shuffle=shuffle)
    if config.mix:
        sources = []
        for source, weight in config.mix.items():
            alone = dataclasses.replace(config, source=source, mix=FrozenMapping())
            sources.append(Source(weight, *_rows(alone, split, align, epochs, shuffle)))
        return mix(sources, config.order_seed(split) if shuffle else None)
    if is_prepared(config.source):
        return prepared_rows(config, split, align, epochs, shuffle)
    return _text_rows(config, split, align, epochs, shuffle)


def _text_rows(
    config: DataConfig, split: str, align: int, epochs: int | None, shuffle: bool
) -> tuple[RowStream, dict[str, Any]]:
    """The packed rows of the documents of a source, and the identity of the data."""
    documents = open_documents(config, split)
    tokenizer = make_tokenizer(config.tokenizer)
    _check_length(documents, tokenizer, config, split, align)

    order = grain.MapDataset.source(documents)
    if shuffle:
        order = order.shuffle(seed=config.order_seed(split))
    # Without shuffling, one lane keeps the order. With it, no document is in two lanes of a pass.
    lanes = min(max(_LANES, config.batch), len(documents)) if shuffle else 1
    identity = {
        "corpus": documents.fingerprint,
        "documents": len(documents),
        "tokenizer": tokenizer.fingerprint,
        "split": split,
        "sequence": config.sequence,
        "align": align,
        "lanes": lanes,
        "seed": config.order_seed(split) if shuffle else None,
        "epochs": epochs,
    }
    tokenized = order.repeat(epochs).map(functools.partial(tokenize, tokenizer=tokenizer))
    spec = PackingSpec(config.sequence, align, lanes, config.order_seed(split) if shuffle else None)
    return PackedRows(tokenized, spec), identity


def _check(config: DataConfig, align: int, epochs: int | None) -> None:
    own_length = config.task is not None and config.task.row_tokens() is not None
    if align < 1 or (config.sequence % align and not own_length):
        raise ConfigError(
            f"data.sequence={config.sequence} is not a multiple of align={align} (the memory's "
            f"chunk): use {_near_multiple(config.sequence, align)}, or another chunk."
        )
    if epochs is not None and epochs < 1:
        raise ConfigError(f"epochs={epochs} must be at least 1, or None.")


def _own_rows(config: DataConfig, rows: Sequence[int] | None) -> tuple[int, ...]:
    if rows is None:
        return tuple(range(config.batch))
    own = tuple(int(row) for row in rows)
    if wrong := [row for row in own if not 0 <= row < config.batch]:
        raise ConfigError(
            f"row {wrong[0]} is not in a batch of data.batch={config.batch}: rows are numbers from "
            f"0 to {config.batch - 1}."
        )
    if not own or len(set(own)) < len(own):
        raise ConfigError(
            f"rows={list(own)[:16]} must be at least one row, and name each row once."
        )
    return own


def _near_multiple(value: int, of: int) -> int:
    return max(1, round(value / max(of, 1))) * max(of, 1)


def _check_length(
    documents: DocumentSource, tokenizer: Tokenizer, config: DataConfig, split: str, align: int
) -> None:
    tokens = 0
    for n in range(len(documents)):
        tokens += len(tokenizer.encode(documents[n]))
        if tokens >= config.sequence:
            return
    fits = tokens // align * align
    remedy = f"use data.sequence={fits} or less, or give more text" if fits else "give more text"
    if split == "validation":
        remedy += ", or raise data.validation"
    raise ConfigError(
        f"the {split} split of data source {config.source!r} holds {tokens} tokens, too few to "
        f"fill one row of data.sequence={config.sequence}: {remedy}."
    )
