"""Random access to the documents of any source.

``local_text`` and ``tfds_text`` provide the records; ``corpus`` selects those of a split.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from miras.data.text.splitting import piece_bytes, split_stream
from miras.errors import ConfigError

SPLITS = ("train", "validation")
_READ_AT_ONCE = 1024


class DocumentSource(Sequence[bytes]):
    """DocumentSource as bytes, with random access: a Grain source.

    Args:
        source: records with ``__getitem__`` and ``__getitems__``, as of ``tfds.data_source``.
        feature: the key of the text in a record.
        fingerprint: a string that identifies the content.
        indices: the selected records, in order; all by default.
        where: the folder of the records, for errors.

    Raises:
        ConfigError: a record is damaged; raised when it is read.
    """

    def __init__(
        self,
        source: Any,
        feature: str,
        fingerprint: str,
        indices: np.ndarray | None = None,
        where: str = "",
    ) -> None:
        self._source, self._where = source, where
        self._feature = feature
        self.fingerprint = fingerprint
        self._indices = np.arange(len(source)) if indices is None else indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        """Returns one document's bytes."""
        with self._damage_as_config_error():
            return as_bytes(self._source[int(self._indices[index])][self._feature])

    def __repr__(self) -> str:
        return f"DocumentSource({len(self)} of {self.fingerprint})"

    def __getstate__(self) -> dict[str, Any]:
        """For other processes: the folder and the split in place of the open records of TFDS."""
        state = dict(self.__dict__)
        if not isinstance(self._source, SplitRecord):
            state["_source"] = (self._where, str(self._source.split))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(self._source, tuple):
            import tensorflow_datasets as tfds

            folder, split = self._source
            builder: Any = tfds.builder_from_directory(folder)
            self._source = builder.as_data_source(split)

    def keys(self) -> np.ndarray:
        """A hash of each document's content, uint64 [len(self)]."""
        keys = []
        for start in range(0, len(self), _READ_AT_ONCE):
            wanted = self._indices[start : start + _READ_AT_ONCE].tolist()
            with self._damage_as_config_error():
                records = self._source.__getitems__(wanted)
            for record in records:
                digest = hashlib.blake2b(as_bytes(record[self._feature]), digest_size=8).digest()
                keys.append(int.from_bytes(digest, "little"))
        return np.array(keys, np.uint64)

    @contextlib.contextmanager
    def _damage_as_config_error(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"the prepared data in {self._where!r} is damaged ({reason}): remove that folder "
                "and repeat the command, which prepares it again."
            ) from error

    def select(self, indices: np.ndarray) -> DocumentSource:
        """Returns the documents at ``indices``."""
        chosen = self._indices[indices]
        return DocumentSource(self._source, self._feature, self.fingerprint, chosen, self._where)


class SplitRecord:
    """A single long record split into documents, with the interface of a TFDS data source."""

    def __init__(self, text: bytes, feature: str) -> None:
        self._pieces = list(split_stream(io.BytesIO(text), piece_bytes(len(text))))
        self._feature = feature

    def __len__(self) -> int:
        return len(self._pieces)

    def __getitem__(self, index: int) -> dict[str, bytes]:
        return {self._feature: self._pieces[index]}

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, bytes]]:
        return [self[i] for i in indices]


def as_bytes(text: Any) -> bytes:
    """The text of a record as bytes; sources return bytes or a string."""
    return text.encode("utf-8") if isinstance(text, str) else bytes(text)
