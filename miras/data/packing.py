"""Packs documents into batches of rows, with a position that can be saved and restored.

Several documents are read in parallel, one per *lane*, and rows are taken from lanes in turn, so
that consecutive rows come from different documents. The position is a few integers: the next
document, and the document and offset of each lane.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import grain
import numpy as np

from miras.errors import ConfigError

Batch = dict[str, np.ndarray]


class TokenizedDocument(NamedTuple):
    """A document after tokenization.

    Attributes:
        tokens: int32 [n + 1], the document start and the n ids of the text.
        byte_lengths: float32 [n], bytes of text of each of the n ids.
    """

    tokens: np.ndarray
    byte_lengths: np.ndarray


def empty_batch(rows: int, sequence: int) -> Batch:
    """A batch of empty rows: arrays [rows, sequence] of zeros, to be filled."""
    shape = (rows, sequence)
    return {
        "inputs": np.zeros(shape, np.int32),
        "targets": np.zeros(shape, np.int32),
        "segment_ids": np.zeros(shape, np.int32),
        "mask": np.zeros(shape, np.bool_),
        "target_bytes": np.zeros(shape, np.float32),
    }


@dataclasses.dataclass(frozen=True)
class PackingSpec:
    """The shape of a batch.

    Attributes:
        sequence: tokens per row, a multiple of ``align``.
        rows: rows packed at a time, over all processes.
        align: segments start at multiples of it.
        lanes: documents read in parallel.
        own: the rows that this process returns, in this order; None returns all. The others are
            counted and not filled.
        rotate: seed of a random row at which each document starts and to which it wraps around;
            None starts at the first row. Rows share no state, so the order of the rows of a
            document does not matter, and early batches are not only the beginnings of files.
    """

    sequence: int
    rows: int
    align: int = 1
    lanes: int = 1
    own: tuple[int, ...] | None = None
    rotate: int | None = None


def check_identity(saved: dict[str, Any], current: dict[str, Any]) -> None:
    """Check that a position was saved while reading the same data.

    Positions of miras 0.1 name a number of processes. Those of one process are the same as today's;
    those of several processes each followed documents of their own.

    Raises:
        ConfigError: the data differs; the message lists the differences.
    """
    saved = dict(saved)
    processes = saved.pop("processes", 1)
    if processes != 1:
        raise ConfigError(
            f"the data position was saved by one of {processes} processes that read documents of "
            "their own, as earlier versions did, and cannot be continued: start a new run, which "
            "can continue from the weights with --from."
        )
    names = sorted(saved.keys() | current.keys())
    if changed := [n for n in names if saved.get(n) != current.get(n)]:
        raise ConfigError(
            "the saved data position belongs to other data, as "
            + ", ".join(f"{n} was {saved.get(n)!r}, is {current.get(n)!r}" for n in changed)
            + ": restore the former data, or start a new run."
        )


class PackedDataset(grain.IterDataset[Batch]):
    """Batches of packed rows from tokenized documents.

    A row is filled with consecutive documents. A document that does not fit is split, and the next
    row of the lane continues with the following token, so that every id is a target exactly once.
    The next document starts at a multiple of ``align``; the gap before it has the segment id of the
    previous document and is masked out. The rest of a row at the end of the data has segment id 0.

    Args:
        documents: random access to ``TokenizedDocument``.
        spec: the shape of a batch.
        identity: plain values that identify the data; restoring a position of other data raises
            an error.
    """

    def __init__(
        self,
        documents: grain.MapDataset[TokenizedDocument],
        spec: PackingSpec,
        identity: dict[str, Any],
    ) -> None:
        super().__init__(documents)
        self._spec = spec
        self._identity = identity

    def __iter__(self) -> PackedIterator:
        return PackedIterator(self._parent, self._spec, self._identity)


@dataclasses.dataclass
class _Lane:
    """A position in a document, whose tokens are fetched when first needed.

    `offset` is the number of tokens read so far, starting at the token that `rotate` chooses.
    """

    index: int
    offset: int = 0
    document: TokenizedDocument | None = None

    def next_span(self, spec: PackingSpec, room: int) -> tuple[int, int, int]:
        """The start and stop of the next tokens, at most `room`, and the document's length."""
        assert self.document is not None
        length = len(self.document.byte_lengths)
        begin = 0
        if spec.rotate is not None:
            rows = length // spec.sequence + 1
            random = np.random.default_rng((spec.rotate, self.index))
            begin = int(random.integers(rows)) * spec.sequence % length
        start = (begin + self.offset) % length
        return start, start + min(room, length - start, length - self.offset), length


class PackedIterator(grain.DatasetIterator[Batch]):
    """Iterator of ``PackedDataset``.

    A batch maps ``inputs``, ``targets`` and ``segment_ids`` to int32, ``mask`` to bool and
    ``target_bytes`` to float32 arrays, each [rows of this process, sequence].
    """

    def __init__(self, documents: Any, spec: PackingSpec, identity: dict[str, Any]) -> None:
        super().__init__()
        self._documents = documents
        self._spec = spec
        self._identity = identity
        self._next = 0
        self._turn = 0
        self._lanes: list[_Lane | None] = [None] * spec.lanes
        own = range(spec.rows) if spec.own is None else spec.own
        self._places = {row: place for place, row in enumerate(own)}

    def __next__(self) -> Batch:
        """Returns the next batch; the last one of a finite pass is padded with empty rows."""
        self._assert_not_closed()
        batch = empty_batch(len(self._places), self._spec.sequence)
        row = 0
        while row < self._spec.rows and self._lanes:
            self._turn %= len(self._lanes)
            if self._pack_row(batch, self._places.get(row), self._turn):
                row += 1
                self._turn += 1
            else:
                del self._lanes[self._turn]  # the lane is exhausted
        if row == 0:
            raise StopIteration
        return batch

    def _pack_row(self, batch: Batch, row: int | None, lane: int) -> bool:
        """Fills one row from one lane, or skips it if `row` is None; False at the lane's end."""
        position, segment = 0, 0
        sequence, align = self._spec.sequence, self._spec.align
        while position < sequence:
            place = self._current(lane)
            if place is None:
                break
            assert place.document is not None
            tokens, lengths = place.document
            start, stop, length = place.next_span(self._spec, sequence - position)
            end = position + stop - start
            segment += 1
            aligned = -(-end // align) * align
            if row is not None:
                batch["inputs"][row, position:end] = tokens[start:stop]
                batch["targets"][row, position:end] = tokens[start + 1 : stop + 1]
                batch["target_bytes"][row, position:end] = lengths[start:stop]
                batch["mask"][row, position:end] = True
                batch["segment_ids"][row, position:aligned] = segment
            position = aligned
            place.offset += stop - start
            if place.offset == length:
                self._lanes[lane] = None
        return position > 0

    def _current(self, lane: int) -> _Lane | None:
        """The lane's position in a document with remaining tokens; None if none is left."""
        place = self._lanes[lane]
        while place is None:
            if self._next >= len(self._documents):
                return None
            place = _Lane(self._next, document=self._documents[self._next])
            self._next += 1
            if place.document is not None and len(place.document.byte_lengths) == 0:
                place = None
        if place.document is None:
            place.document = self._documents[place.index]
        self._lanes[lane] = place
        return place

    def get_state(self) -> dict[str, Any]:
        """Returns the position as plain JSON values."""
        return {
            "identity": dict(self._identity),
            "next": self._next,
            "turn": self._turn,
            "lanes": [None if lane is None else [lane.index, lane.offset] for lane in self._lanes],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores a position from ``get_state``; documents are fetched when needed.

        Raises:
            ConfigError: the position was saved while reading other data.
        """
        check_identity(state["identity"], self._identity)
        self._next = int(state["next"])
        self._turn = int(state["turn"])
        self._lanes = [
            None if place is None else _Lane(int(place[0]), int(place[1]))
            for place in state["lanes"]
        ]

    def __str__(self) -> str:
        return "PackedIterator"
