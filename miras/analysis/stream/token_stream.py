"""The tokens of a text of any length, and the position from which a stopped reader resumes."""

import collections
import dataclasses
import hashlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from miras.analysis.stream.blocks import SIZE, blocks
from miras.analysis.stream.read import Bucket
from miras.config import require
from miras.data import Tokenizer
from miras.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class TextPosition:
    """A position in a partly read text, as a session's notes save it.

    Attributes:
        offset: bytes of the text before the current block.
        end: bytes of the text to the end of that block.
        sha256: digest of the bytes up to `end`.
        skip: tokens of that block that have been read.
        fresh: whether the text began with a document start.
        buckets: measurements so far.
    """

    offset: int
    end: int
    sha256: str
    skip: int
    fresh: bool
    buckets: list[Bucket]

    def notes(self) -> dict[str, Any]:
        """As JSON values."""
        return dataclasses.asdict(self)


def parse_position(notes: Any) -> TextPosition:
    """Parse the result of `TextPosition.notes`.

    Raises:
        ConfigError: for values of wrong types.
    """
    try:
        position = TextPosition(**{name: notes[name] for name in _TYPES})
        typed = all(type(getattr(position, name)) is kind for name, kind in _TYPES.items())
        buckets = [Bucket(**bucket) for bucket in notes["buckets"]]
        ordered = 0 <= position.offset <= position.end and position.skip >= 0
        valid = typed and ordered and all(map(_is_valid, buckets))
    except (LookupError, TypeError) as error:
        raise _damaged(error) from error
    if not valid:
        raise _damaged("values of wrong types")
    return dataclasses.replace(position, buckets=buckets)


_TYPES = {"offset": int, "end": int, "sha256": str, "skip": int, "fresh": bool, "buckets": list}


def _is_valid(bucket: Bucket) -> bool:
    counts = (bucket.first, bucket.last, bucket.targets)
    health = bucket.health if isinstance(bucket.health, dict) else {"": None}
    return (
        all(type(count) is int and count >= 0 for count in counts)
        and all(type(sum_) in (int, float) for sum_ in (bucket.nats, bucket.bytes))
        and all(type(value) in (int, float) for value in health.values())
    )


def _damaged(why: object) -> ConfigError:
    return ConfigError(
        f"the position in the session cannot be read ({why}): begin a new session in another file."
    )


class _Block(NamedTuple):
    """A block's byte range, the number of tokens before it, and the text's digest to its end."""

    offset: int
    end: int
    tokens: int
    digest: str


class TokenStream:
    """The tokens of a text, block by block, with the position of each block.

    Args:
        tokenizer: the run's.
        parts: the text's bytes, in parts of any sizes.
        starts_document: whether to begin with the document start; False after other text.
        position: where to resume in the text; its start if not given.
        size: maximum bytes of a block, see `blocks`.

    Attributes:
        offset: bytes of the text whose tokens have been yielded.
        last: the last of these tokens.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        parts: Iterable[bytes],
        *,
        starts_document: bool,
        position: TextPosition | None = None,
        size: int = SIZE,
    ):
        self.offset = 0
        self.last: int | None = None
        self._tokenizer, self._size = tokenizer, size
        self._parts: Iterator[bytes] = iter(parts)
        self._starts_document = starts_document if position is None else position.fresh
        self._resumed = position
        self._blocks: collections.deque[_Block] = collections.deque()

    def tokens(self) -> Iterator[np.ndarray]:
        """The ids in arrays of any length.

        Raises:
            ConfigError: if the text differs from the one read before.
        """
        digest, yielded = hashlib.sha256(), 0
        first = None if self._resumed is None else self._skip_to(self._resumed, digest)
        skip = 0 if self._resumed is None else self._resumed.skip
        for block in itertools.chain([first] if first else [], blocks(self._parts, self._size)):
            ids = self._encode(block)
            require(skip <= len(ids), _other_text(self.offset))
            end = self.offset + len(block)
            digest.update(block)
            self._blocks.append(_Block(self.offset, end, yielded - skip, digest.hexdigest()))
            self.offset = end
            yielded += len(ids) - skip
            self.last = int(ids[-1]) if len(ids) else self.last
            yield ids[skip:]
            skip = 0

    def position(self, count: int, buckets: list[Bucket]) -> TextPosition:
        """The position after the first `count` of these tokens."""
        while len(self._blocks) > 1 and self._blocks[1].tokens <= count:
            self._blocks.popleft()
        block = self._blocks[0]
        skip = count - block.tokens
        return TextPosition(
            block.offset, block.end, block.digest, skip, self._starts_document, buckets
        )

    def _encode(self, block: bytes) -> np.ndarray:
        if not self._starts_document or self.offset > 0:
            return self._tokenizer.encode_next(block)
        start = np.asarray([self._tokenizer.bos_id], np.int32)
        return np.concatenate([start, self._tokenizer.encode(block)])

    def _skip_to(self, position: TextPosition, digest: Any) -> bytes:
        """The block to resume in; the text before it is only compared by its digest."""
        held, passed, whole = b"", 0, hashlib.sha256()
        for part in self._parts:
            before = part[: max(0, position.offset - passed)]
            digest.update(before)
            whole.update(part[: max(0, position.end - passed)])
            held += part[len(before) :]
            passed += len(part)
            if passed >= position.end:
                break
        require(
            passed >= position.end and whole.hexdigest() == position.sha256,
            _other_text(position.end),
        )
        size = position.end - position.offset
        self.offset = position.offset
        self._parts = itertools.chain([held[size:]], self._parts)
        return held[:size]


def _other_text(end: int) -> str:
    return (
        f"the session was saved after {end:,} bytes of another text: give that file to continue, "
        "or another --session."
    )
