"""Random access to the records of the shards of a split."""

from __future__ import annotations

import bisect
import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from array_record.python import array_record_module  # pyright: ignore
from etils import epath

from miras.data.prepared.layout import Shard
from miras.errors import ConfigError

_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"  # of random access


class ShardedRecords(Sequence[bytes]):
    """The records of local shards, in order; files are opened when first read.

    Args:
        folder: of the shards.
        shards: of one split.

    Raises:
        ConfigError: a shard is missing or damaged; raised when it is read.
    """

    def __init__(self, folder: epath.Path, shards: Sequence[Shard]) -> None:
        self._folder, self._shards = folder, list(shards)
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
            path = self._folder / self._shards[n].file
            if path.stat().length != self._shards[n].size:
                raise ValueError(f"it has {path.stat().length} bytes")
            self._readers[n] = array_record_module.ArrayRecordReader(str(path), _OPTIONS)
        return self._readers[n]


@contextlib.contextmanager
def damage_as_config_error(folder: epath.Path, shard: Shard) -> Iterator[None]:
    """Turn what a damaged file raises into the error that says what to do."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"shard {str(folder / shard.file)!r} of the prepared set is damaged ({reason}): repeat "
            "the `miras prepare` that wrote it, which writes this shard again."
        ) from error
