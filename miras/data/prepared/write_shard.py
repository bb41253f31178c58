"""Writes one shard of a prepared set."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pathlib
import secrets
import tempfile
from collections.abc import Iterator

import grain
from array_record.python import array_record_module  # pyright: ignore
from etils import epath

from miras.data.packing import PackedRows, PackingSpec
from miras.data.prepared.layout import Plan, Shard, shard_json
from miras.data.prepared.record import encode
from miras.data.rows import empty_batch
from miras.data.text.documents import DocumentSource
from miras.data.tokenized import tokenize
from miras.data.tokenizers.make_tokenizer import make_tokenizer
from miras.runtime import paths

_OPTIONS = "group_size:1"  # a record is decompressed alone, for random access
_BLOCK = 2**20


def write_shard(
    documents: DocumentSource, tokenizer: str, plan: Plan, folder: str, name: str
) -> Shard:
    """Write the rows of documents to a shard, and then its counts.

    Args:
        documents: of the shard.
        tokenizer: as ``data.tokenizer``.
        plan: of the set.
        folder: of the set, local or on an object store.
        name: of the shard, without suffix.

    Raises:
        OSError: the folder cannot be written.
    """
    target = paths.open_path(folder)
    tokens = make_tokenizer(tokenizer)
    source = grain.MapDataset.source(documents).map(functools.partial(tokenize, tokenizer=tokens))
    stream = PackedRows(source, PackingSpec(plan.sequence, plan.align))
    rows = targets = size = 0
    with _temporary(target) as path:
        writer = array_record_module.ArrayRecordWriter(str(path), _OPTIONS)
        batch = empty_batch(1, plan.sequence)
        while stream.fill(batch, 0):
            writer.write(encode(batch, 0))
            rows += 1
            targets += int(batch["mask"].sum())
            size += float(batch["target_bytes"].sum(dtype="float64"))
            batch = empty_batch(1, plan.sequence)
        writer.close()
        shard = Shard(
            name, rows, targets, round(size), path.stat().st_size, file_sha256(epath.Path(path))
        )
        paths.upload(path, target / shard.file)
    paths.write(target / f"{name}.json", shard_json(shard))
    return shard


def file_sha256(path: epath.Path) -> str:
    """The sha256 of a file, local or on an object store."""
    digest = hashlib.sha256()
    opened = paths.file_system(path).open(str(path)) if paths.is_remote(path) else path.open("rb")
    with opened as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def _temporary(folder: epath.Path) -> Iterator[pathlib.Path]:
    """A new local file on the disk of a folder; a temporary one for an object store."""
    here = tempfile.gettempdir() if paths.is_remote(folder) else folder
    path = pathlib.Path(here, f".{secrets.token_hex(16)}.new")
    try:
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
