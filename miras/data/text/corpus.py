"""The documents of a source, divided into train and validation.

Local text is prepared by ``local_text``; TFDS sets are found by ``tfds_text``. Tokens and rows come
later, in ``loader`` and ``packing``.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import pathlib
from typing import Any, cast

import numpy as np

from miras.data.config import DataConfig
from miras.data.text import local_text
from miras.data.text.documents import Documents
from miras.data.text.read_report import Reading, printable, tell
from miras.data.text.tfds_text import open_tfds
from miras.errors import ConfigError
from miras.runtime.files import write_whole

_DIGEST_BYTES = hashlib.sha256().digest_size
SPLITS = ("train", "validation")


def open_documents(config: DataConfig, split: str) -> Documents:
    """Returns the documents of one split of ``config.source``.

    A TFDS set with a validation split of its own keeps it. Elsewhere a document is held out by a
    hash of its content alone: neither the order, the other documents nor the seed matter. With two
    documents or more neither split is empty.

    Raises:
        ConfigError: the source is missing, empty, not prepared, has no text feature, or is too
            small to hold anything out.
    """
    if split not in SPLITS:
        raise ConfigError(f"split {split!r} is not known: use 'train' or 'validation'.")
    scheme, _, name = config.source.partition(":")
    if scheme == "tfds":
        documents, divided = open_tfds(name, config.cache_dir, split, config.field)
        digest = documents.fingerprint
        tell(Reading(printable(config.source), len(documents), unit="record", digest=digest))
    else:
        builder = local_text.prepare(config.source, config.cache_dir, config.field)
        tell(builder.reading)
        # TFDS's decorators hide the signature of as_data_source from type checkers.
        builder = cast(Any, builder)
        sha256 = dict(builder.info.metadata or {})["sha256"]
        source = builder.as_data_source(local_text.SPLIT)
        where = str(builder.data_dir)
        documents, divided = Documents(source, "text", sha256, where=where), False
    if len(documents) == 0:
        raise ConfigError(
            f"the {split} split of data source {config.source!r} is empty: give a set with text."
        )
    return documents if divided else _hash_split(documents, config, split)


def validation_mask(keys: np.ndarray, fraction: float) -> np.ndarray:
    """Which documents are held out, bool [n], from their content hashes.

    Args:
        keys: uint64 [n], uniform if the contents are distinct.
        fraction: the expected share held out, in (0, 1).
    """
    mask = keys < np.uint64(min(int(fraction * 2.0**64), 2**64 - 1))
    if len(keys) > 1 and not mask.any():
        mask[np.argmin(keys)] = True
    elif len(keys) > 1 and mask.all():
        mask[np.argmax(keys)] = False
    return mask


def _hash_split(documents: Documents, config: DataConfig, split: str) -> Documents:
    if len(documents) < 2:
        raise ConfigError(
            f"data source {config.source!r} holds a single short document, of which nothing can be "
            "held out for validation: give more text."
        )
    mask = validation_mask(_cached_keys(documents, config.cache_dir), config.validation)
    return documents.select(np.flatnonzero(mask if split == "validation" else ~mask))


def _cached_keys(documents: Documents, cache: pathlib.Path) -> np.ndarray:
    """Content hashes, kept on disk because a large set takes minutes to read through."""
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
    # A cache that cannot be written costs time, not correctness.
    with contextlib.suppress(OSError, ConfigError):
        path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        np.save(content, keys)
        write_whole(path, _with_digest(content.getvalue()))
    return keys


def _with_digest(content: bytes) -> bytes:
    """A file's content with its sha256 behind it, since a flipped bit would move a document."""
    return content + hashlib.sha256(content).digest()
