"""The documents of a source, split into train and validation.

``local_text`` prepares local text, and ``tfds_text`` finds TFDS sets.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import pathlib
from typing import Any, cast

import numpy as np

from miras.data.config import DataConfig
from miras.data.prepared.layout import is_prepared
from miras.data.text import local_text
from miras.data.text.documents import SPLITS, DocumentSource
from miras.data.text.read_report import ReadReport, printable, report
from miras.data.text.remote import local_copy
from miras.data.text.tfds_text import open_tfds
from miras.errors import ConfigError
from miras.runtime.files import write_atomically

_DIGEST_BYTES = hashlib.sha256().digest_size


def open_documents(config: DataConfig, split: str) -> DocumentSource:
    """Returns the documents of one split of ``config.source``.

    A TFDS set with its own validation split keeps it. Otherwise a document is held out by a hash of
    its content, independently of the order, of other documents and of the seed. With at least two
    documents, neither split is empty.

    Raises:
        ConfigError: the source is missing, empty or not prepared, has no text feature, or is too
            small to split.
    """
    if split not in SPLITS:
        raise ConfigError(f"split {split!r} is unknown: use 'train' or 'validation'.")
    if config.mix:
        raise ConfigError(
            f"data.mix names {len(config.mix)} sources, but one text is read here: choose one with "
            "--data, or data.source with data.mix={}."
        )
    if is_prepared(config.source):
        raise ConfigError(
            f"data source {config.source!r} is a prepared set, which holds tokens and no "
            "documents: give the text itself here."
        )
    scheme, _, name = config.source.partition(":")
    if scheme == "tfds":
        documents, divided = open_tfds(name, config.cache_dir, split, config.field)
        digest = documents.fingerprint
        report(ReadReport(printable(config.source), len(documents), unit="record", digest=digest))
    else:
        source = local_copy(config.source, config.cache_dir)
        builder = local_text.prepare(source, config.cache_dir, config.field)
        report(dataclasses.replace(builder.reading, source=printable(config.source)))
        # TFDS's decorators hide the signature of as_data_source from type checkers.
        builder = cast(Any, builder)
        sha256 = dict(builder.info.metadata or {})["sha256"]
        source = builder.as_data_source(local_text.SPLIT)
        where = str(builder.data_dir)
        documents, divided = DocumentSource(source, "text", sha256, where=where), False
    if len(documents) == 0:
        raise ConfigError(
            f"the {split} split of data source {config.source!r} is empty: give a set with text."
        )
    return documents if divided else _hash_split(documents, config, split)


def validation_mask(keys: np.ndarray, fraction: float) -> np.ndarray:
    """Which documents are held out, bool [n].

    Args:
        keys: content hashes, uint64 [n].
        fraction: expected fraction of held-out documents, in (0, 1).
    """
    mask = keys < np.uint64(min(int(fraction * 2.0**64), 2**64 - 1))
    if len(keys) > 1 and not mask.any():
        mask[np.argmin(keys)] = True
    elif len(keys) > 1 and mask.all():
        mask[np.argmax(keys)] = False
    return mask


def _hash_split(documents: DocumentSource, config: DataConfig, split: str) -> DocumentSource:
    if len(documents) < 2:
        raise ConfigError(
            f"data source {config.source!r} holds a single short document, which cannot be "
            "split for validation: give more text."
        )
    mask = validation_mask(_cached_keys(documents, config.cache_dir), config.validation)
    return documents.select(np.flatnonzero(mask if split == "validation" else ~mask))


def _cached_keys(documents: DocumentSource, cache: pathlib.Path) -> np.ndarray:
    """Content hashes, cached on disk because reading a large set takes minutes."""
    name = hashlib.sha256(documents.fingerprint.encode()).hexdigest()[:32]
    path = cache / "content_keys" / f"{name}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):
        stored = path.read_bytes()
        content = stored[:-_DIGEST_BYTES]
        if stored == _with_digest(content):
            keys = np.load(io.BytesIO(content))
            if keys.shape == (len(documents),) and keys.dtype == np.uint64:
                return keys
    keys = documents.keys()
    # Without a cache the result is the same.
    with contextlib.suppress(OSError, ConfigError):
        path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        np.save(content, keys)
        write_atomically(path, _with_digest(content.getvalue()))
    return keys


def _with_digest(content: bytes) -> bytes:
    """The content followed by its sha256, since a flipped bit would move a document."""
    return content + hashlib.sha256(content).digest()
