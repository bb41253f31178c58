"""Checks every shard and every row of a prepared set."""

from __future__ import annotations

import os
import pathlib
import tempfile
from collections.abc import Callable

import numpy as np
from etils import epath

from miras.data.prepared.layout import Index, Plan, Shard, read_index
from miras.data.prepared.record import decode
from miras.data.prepared.shards import ShardedRecords, damage_as_config_error
from miras.data.prepared.write_shard import file_sha256
from miras.data.rows import empty_batch
from miras.runtime.paths import open_path


def verify(
    folder: str | os.PathLike[str], progress: Callable[[int, int], None] | None = None
) -> Index:
    """Check a finished set: the sha256 of each shard, and its rows against its counts.

    Args:
        folder: of the set.
        progress: called with the number of shards that are checked and of all shards.

    Returns:
        The index of the set.

    Raises:
        ConfigError: the set is unfinished or damaged; the message names the shard.
    """
    path = open_path(folder)
    index = read_index(path)
    shards = [shard for found in index.shards.values() for shard in found]
    for n, shard in enumerate(shards, 1):
        with damage_as_config_error(path, shard):
            if file_sha256(path / shard.file) != shard.sha256:
                raise ValueError("its sha256 is not that of the index")
            _check_rows(path, index.plan, shard)
        if progress is not None:
            progress(n, len(shards))
    return index


def _check_rows(folder: epath.Path, plan: Plan, shard: Shard) -> None:
    with tempfile.TemporaryDirectory() as copies:
        _check_records(ShardedRecords(folder, [shard], pathlib.Path(copies)), plan, shard)


def _check_records(records: ShardedRecords, plan: Plan, shard: Shard) -> None:
    tokens, size = 0, 0.0
    for n in range(shard.rows):
        batch = empty_batch(1, plan.sequence)
        decode(records[n], plan.align, batch, 0)
        if max(batch["inputs"].max(), batch["targets"].max()) >= plan.vocabulary:
            raise ValueError(f"row {n} has an id that the tokenizer has not")
        tokens += int(batch["mask"].sum())
        size += float(batch["target_bytes"].sum(dtype=np.float64))
    if (tokens, round(size)) != (shard.tokens, shard.bytes):
        raise ValueError(f"it has {tokens} tokens and not {shard.tokens}")
