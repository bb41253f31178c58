"""`make_loader`: the iterator of batches that a ``DataConfig`` describes.

It connects ``corpus`` (documents), ``tokenizers`` (ids) and ``packing`` (rows); tasks are in
``task_loader``.
"""

from __future__ import annotations

import functools

import grain
import numpy as np

from miras.data.config import DataConfig
from miras.data.packing import Batch, PackedDataset, PackingSpec, TokenizedDocument
from miras.data.task_loader import make_task_loader
from miras.data.text.corpus import open_documents
from miras.data.text.documents import DocumentSource
from miras.data.tokenizers.base import Tokenizer
from miras.data.tokenizers.make_tokenizer import make_tokenizer
from miras.errors import ConfigError

_LANES = 128  # enough that consecutive batches rarely share a document


def make_loader(
    config: DataConfig,
    split: str,
    *,
    align: int,
    process_index: int = 0,
    process_count: int = 1,
    epochs: int | None = None,
    shuffle: bool | None = None,
) -> grain.DatasetIterator[Batch]:
    """Returns an iterator of batches whose position can be saved and restored.

    A batch is a dict of arrays [batch / process_count, sequence]: ``inputs`` and ``targets`` int32;
    ``segment_ids`` int32, 1 and up for the documents inside a row, changing only at multiples of
    ``align``, and 0 where a row has nothing more; ``mask`` bool, where the target counts;
    ``target_bytes`` float32, the bytes of text of the target, 0 where masked out. Bits per byte are
    ``sum(nll * mask) / ln 2 / sum(target_bytes)``.

    ``get_state`` and ``set_state`` save and restore the exact position, and the iterator is a valid
    item of ``ocp.save_checkpointables``.

    A row of a task is one example, whose mask is true where the targets are tokens of the answer.

    Processes read disjoint documents if the data repeats without end. In a finite pass they read
    disjoint rows of the same batches, so that all processes do the same number of steps.

    Args:
        config: what to read.
        split: ``"train"`` or ``"validation"``.
        align: segments start at multiples of this; the chunk of the memory. It divides
            ``config.sequence``.
        process_index: this process, in [0, process_count).
        process_count: number of processes that share a batch; it divides ``config.batch``.
        epochs: passes over the documents; None is unlimited for train and 1 for validation.
        shuffle: whether each pass has a new seeded order; None is true for train only.

    Raises:
        ConfigError: an argument is out of range, the source or tokenizer cannot be used, the split
            has fewer than ``sequence`` tokens, or a row of the task does not fit in them.
    """
    _check(config, align, process_index, process_count, epochs)
    train = split == "train"
    shuffle = train if shuffle is None else shuffle
    epochs = epochs if train or epochs is not None else 1
    if config.task is not None:
        return make_task_loader(
            config,
            split,
            process_index=process_index,
            process_count=process_count,
            epochs=epochs,
            shuffle=shuffle,
        )
    documents = open_documents(config, split)
    tokenizer = make_tokenizer(config.tokenizer)
    _check_length(documents, tokenizer, config, split, align)

    stream = grain.MapDataset.source(documents)
    if shuffle:
        stream = stream.shuffle(seed=config.seed)
    stream = stream.repeat(epochs)
    if epochs is None:
        stream = stream[process_index::process_count]
        rows, first, stride = config.batch // process_count, 0, 1
        available = -(-len(documents) // process_count)
    else:
        rows, first, stride = config.batch, process_index, process_count
        available = len(documents)
    # Without shuffling, one lane keeps the order. With it, no document is in two lanes of a pass.
    lanes = min(max(_LANES, rows), available) if shuffle else 1
    rotate = config.seed if shuffle else None
    layout = PackingSpec(config.sequence, rows, align, lanes, first, stride, rotate)
    identity = {
        "corpus": documents.fingerprint,
        "documents": len(documents),
        "tokenizer": tokenizer.fingerprint,
        "split": split,
        "sequence": config.sequence,
        "align": align,
        "lanes": lanes,
        "seed": config.seed if shuffle else None,
        "epochs": epochs,
        "processes": process_count,
    }
    tokenized = stream.map(functools.partial(tokenize, tokenizer=tokenizer))
    return iter(PackedDataset(tokenized, layout, identity))


def tokenize(text: bytes, tokenizer: Tokenizer) -> TokenizedDocument:
    """Returns the document start and the ids of a document, with the bytes of each id."""
    ids = tokenizer.encode(text)
    lengths = tokenizer.byte_lengths[ids]
    total = lengths.sum(dtype=np.float64)
    if total not in (0, len(text)):
        # Tokenizers may normalise text or add a space: scale to the true size for bits per byte.
        lengths = (lengths * (len(text) / total)).astype(np.float32)
    return TokenizedDocument(np.append(np.int32(tokenizer.bos_id), ids), lengths)


def _check(
    config: DataConfig, align: int, process_index: int, process_count: int, epochs: int | None
) -> None:
    if align < 1 or config.sequence % align:
        raise ConfigError(
            f"data.sequence={config.sequence} is not a multiple of align={align} (the memory's "
            f"chunk): use {_near_multiple(config.sequence, align)}, or another chunk."
        )
    if process_count < 1 or not 0 <= process_index < process_count:
        raise ConfigError(
            f"process_index={process_index} must lie in [0, process_count={process_count})."
        )
    if config.batch % process_count:
        raise ConfigError(
            f"data.batch={config.batch} is not divisible by process_count={process_count}: "
            f"use {_near_multiple(config.batch, process_count)}."
        )
    if epochs is not None and epochs < 1:
        raise ConfigError(f"epochs={epochs} must be at least 1, or None.")


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
