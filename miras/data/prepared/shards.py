"""Random access to the records of the shards of a split."""

from __future__ import annotations

import bisect
import contextlib
import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from array_record.python import array_record_module  # pyright: ignore
from etils import epath

from miras.data.prepared.layout import Shard
from miras.data.prepared.write_shard import file_sha256
from miras.errors import ConfigError
from miras.runtime.paths import download, is_remote

_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"  # of random access


class ShardedRecords(Sequence[bytes]):
    """The records of shards, in order; files are opened when first read.

    Readers of array_record seek in local files. A shard on an object store is thus copied when it
    is first read, and its sha256 is checked.

    Args:
        folder: of the shards, local or on an object store.
        shards: of one split.
        copies: folder of the local copies.

    Raises:
        ConfigError: a shard is missing or damaged; raised when it is read.
    """

    def __init__(self, folder: epath.Path, shards: Sequence[Shard], copies: pathlib.Path) -> None:
        self._folder, self._shards, self._copies = folder, list(shards), copies
        self._ends = list(itertools.accumulate(shard.rows for shard in shards))
        self._readers: dict[int, Any] = {}

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: Any) -> Any:
        """Returns one record."""
        index = int(index)
        n = bisect.bisect_right(self._ends, index)
        first = self._ends[n - 1] if n else 0
        with damage_as_config_error(self._folder, self._shards[n]):
            return self._reader(n).read([index - first])[0]

    def _reader(self, n: int) -> Any:
        if n not in self._readers:
            path = self._local(self._shards[n])
            if path.stat().st_size != self._shards[n].size:
                raise ValueError(f"it has {path.stat().st_size} bytes")
            self._readers[n] = array_record_module.ArrayRecordReader(str(path), _OPTIONS)
        return self._readers[n]

    def _local(self, shard: Shard) -> pathlib.Path:
        if not is_remote(self._folder):
            return pathlib.Path(self._folder / shard.file)
        copy = self._copies / f"{shard.sha256[:32]}.array_record"
        if not copy.exists() or copy.stat().st_size != shard.size:
            download(self._folder / shard.file, copy)
            if file_sha256(epath.Path(copy)) != shard.sha256:
                copy.unlink()
                raise ValueError("its sha256 is not that of the index")
        return copy


@contextlib.contextmanager
def damage_as_config_error(folder: epath.Path, shard: Shard) -> Iterator[None]:
    """Turn what a damaged file raises into the error that says what to do."""
    try:
        yield
    except ConfigError:
        raise
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"shard {str(folder / shard.file)!r} of the prepared set is damaged ({reason}): repeat "
            "the `miras prepare` that wrote it, which writes this shard again."
        ) from error
