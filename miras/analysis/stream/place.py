"""Where a reader stands in a file, so that a stopped one goes on with the same tokens."""

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
class Place:
    """What the notes of a session say of a file that was read in part.

    Attributes:
        offset: bytes of the text before the block that was being read.
        end: bytes of the text to the end of that block.
        sha256: of those up to the end.
        skip: tokens of that block that were read.
        fresh: whether the text began with a document start.
        buckets: what was measured.
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


def place_of(notes: Any) -> Place:
    """The inverse of `Place.notes`.

    Raises:
        ConfigError: for values of other types.
    """
    try:
        place = Place(**{name: notes[name] for name in _TYPES})
        right = all(type(getattr(place, name)) is kind for name, kind in _TYPES.items())
        made = [Bucket(**bucket) for bucket in notes["buckets"]]
        right = (
            right and 0 <= place.offset <= place.end and place.skip >= 0 and all(map(_right, made))
        )
    except (LookupError, TypeError) as error:
        raise _damaged(error) from error
    if not right:
        raise _damaged("values of other types")
    return dataclasses.replace(place, buckets=made)


_TYPES = {"offset": int, "end": int, "sha256": str, "skip": int, "fresh": bool, "buckets": list}


def _right(bucket: Bucket) -> bool:
    counts = (bucket.first, bucket.last, bucket.targets)
    health = bucket.health if isinstance(bucket.health, dict) else {"": None}
    return (
        all(type(count) is int and count >= 0 for count in counts)
        and all(type(sum_) in (int, float) for sum_ in (bucket.nats, bucket.bytes))
        and all(type(value) in (int, float) for value in health.values())
    )


def _damaged(why: object) -> ConfigError:
    return ConfigError(
        f"the session's place in a text cannot be read ({why}): begin a new one in another file."
    )


class _Block(NamedTuple):
    """Where a block lies in the text, how many tokens are before it, and the digest to its end."""

    offset: int
    end: int
    tokens: int
    digest: str


class Reader:
    """The tokens of a text, block by block, and where each begins.

    Args:
        tokenizer: the run's.
        parts: the text's bytes, in parts of any sizes.
        fresh: whether a document starts here, or other text was read before.
        place: where to go on in the text; at its start if not given.
        size: of a block, see `blocks`.

    Attributes:
        offset: bytes of the text whose tokens were given out.
        last: the last of these tokens.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        parts: Iterable[bytes],
        *,
        fresh: bool,
        place: Place | None = None,
        size: int = SIZE,
    ):
        self.offset = 0
        self.last: int | None = None
        self._tokenizer, self._size = tokenizer, size
        self._parts: Iterator[bytes] = iter(parts)
        self._fresh, self._place = fresh if place is None else place.fresh, place
        self._blocks: collections.deque[_Block] = collections.deque()

    def tokens(self) -> Iterator[np.ndarray]:
        """The ids in arrays of any length.

        Raises:
            ConfigError: for a text that is not the one that was read before.
        """
        digest, given = hashlib.sha256(), 0
        first = None if self._place is None else self._passed(self._place, digest)
        skip = 0 if self._place is None else self._place.skip
        for block in itertools.chain([first] if first else [], blocks(self._parts, self._size)):
            ids = self._encode(block)
            require(skip <= len(ids), _another(self.offset))
            end = self.offset + len(block)
            digest.update(block)
            self._blocks.append(_Block(self.offset, end, given - skip, digest.hexdigest()))
            self.offset = end
            given += len(ids) - skip
            self.last = int(ids[-1]) if len(ids) else self.last
            yield ids[skip:]
            skip = 0

    def place(self, taken: int, buckets: list[Bucket]) -> Place:
        """Where the text stands after so many of these tokens were read."""
        while len(self._blocks) > 1 and self._blocks[1].tokens <= taken:
            self._blocks.popleft()
        block = self._blocks[0]
        skip = taken - block.tokens
        return Place(block.offset, block.end, block.digest, skip, self._fresh, buckets)

    def _encode(self, block: bytes) -> np.ndarray:
        if not self._fresh or self.offset > 0:
            return self._tokenizer.encode_next(block)
        start = np.asarray([self._tokenizer.bos_id], np.int32)
        return np.concatenate([start, self._tokenizer.encode(block)])

    def _passed(self, place: Place, digest: Any) -> bytes:
        """The block that was being read; what is before it is only compared."""
        held, passed, whole = b"", 0, hashlib.sha256()
        for part in self._parts:
            ahead = part[: max(0, place.offset - passed)]
            digest.update(ahead)
            whole.update(part[: max(0, place.end - passed)])
            held += part[len(ahead) :]
            passed += len(part)
            if passed >= place.end:
                break
        require(passed >= place.end and whole.hexdigest() == place.sha256, _another(place.end))
        size = place.end - place.offset
        self.offset = place.offset
        self._parts = itertools.chain([held[size:]], self._parts)
        return held[:size]


def _another(end: int) -> str:
    return (
        f"the session was saved within another text, of which {end:,} bytes were read: give that "
        "file to go on with it, or another --session."
    )
