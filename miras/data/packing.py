"""Documents packed into batches of rows, with a position that can be saved and restored.

Several documents are read side by side, one in each *lane*, and rows are drawn from the lanes in
turn. Consecutive rows then come from different documents, and the position is a few integers: the
next document, and each lane's document and offset.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import grain
import numpy as np

from miras.errors import ConfigError

Batch = dict[str, np.ndarray]


class TokenizedDocument(NamedTuple):
    """One document as the packer reads it.

    Attributes:
        tokens: int32 [n + 1], the document start and the n ids of the text.
        byte_lengths: float32 [n], bytes of text that each of the n ids stands for.
    """

    tokens: np.ndarray
    byte_lengths: np.ndarray


@dataclasses.dataclass(frozen=True)
class Layout:
    """The shape of a batch.

    Attributes:
        sequence: tokens in a row, a multiple of ``align``.
        rows: rows packed at a time.
        align: segments start at multiples of it.
        lanes: documents read side by side.
        first, stride: of the packed rows, hand out ``[first::stride]``.
        rotate: seed by which each document is begun at a random row and read round; None begins
            each at its start. Rows carry no state into each other, so nothing is lost, and early
            batches see more than the heads of files.
    """

    sequence: int
    rows: int
    align: int = 1
    lanes: int = 1
    first: int = 0
    stride: int = 1
    rotate: int | None = None


def check_identity(saved: dict[str, Any], own: dict[str, Any]) -> None:
    """Refuse a position that was saved while reading other data, showing what differs.

    Raises:
        ConfigError: where the two differ.
    """
    names = sorted(saved.keys() | own.keys())
    if changed := [n for n in names if saved.get(n) != own.get(n)]:
        raise ConfigError(
            "the saved data position belongs to other data, as "
            + ", ".join(f"{n} was {saved.get(n)!r}, is {own.get(n)!r}" for n in changed)
            + ": restore what was, or start a new run."
        )


class PackedDataset(grain.IterDataset[Batch]):
    """Batches of packed rows from tokenized documents.

    Document after document fills a row. One that does not fit is cut; its next row goes on with
    the following token, so that every id of every document is a target exactly once. The next
    document starts at a multiple of ``align``; the gap before it keeps the id of the segment it
    follows and is masked out. What is left of a row at the end of the data has segment id 0.

    Args:
        documents: random access to ``TokenizedDocument``.
        layout: the shape of a batch.
        identity: plain values that name the data; a position saved under others is refused.
    """

    def __init__(
        self,
        documents: grain.MapDataset[TokenizedDocument],
        layout: Layout,
        identity: dict[str, Any],
    ) -> None:
        super().__init__(documents)
        self._layout = layout
        self._identity = identity

    def __iter__(self) -> PackedIterator:
        return PackedIterator(self._parent, self._layout, self._identity)


@dataclasses.dataclass
class _Lane:
    """A place in one document; its tokens are fetched when first needed.

    `offset` counts the tokens read so far, beginning at a token that the layout decides.
    """

    index: int
    offset: int = 0
    document: TokenizedDocument | None = None

    def run(self, layout: Layout, room: int) -> tuple[int, int, int]:
        """Where to read on: first token, past the last, and the document's length."""
        assert self.document is not None
        length = len(self.document.byte_lengths)
        begin = 0
        if layout.rotate is not None:
            rows = length // layout.sequence + 1
            random = np.random.default_rng((layout.rotate, self.index))
            begin = int(random.integers(rows)) * layout.sequence % length
        start = (begin + self.offset) % length
        return start, start + min(room, length - start, length - self.offset), length


class PackedIterator(grain.DatasetIterator[Batch]):
    """Iterator of ``PackedDataset``.

    A batch maps ``inputs``, ``targets`` and ``segment_ids`` to int32, ``mask`` to bool and
    ``target_bytes`` to float32 arrays, each [rows, sequence].
    """

    def __init__(self, documents: Any, layout: Layout, identity: dict[str, Any]) -> None:
        super().__init__()
        self._documents = documents
        self._layout = layout
        self._identity = identity
        self._next = 0
        self._turn = 0
        self._lanes: list[_Lane | None] = [None] * layout.lanes

    def __next__(self) -> Batch:
        """Returns the next batch; the last of a finite pass is filled up with empty rows."""
        self._assert_not_closed()
        shape = (self._layout.rows, self._layout.sequence)
        batch = {
            "inputs": np.zeros(shape, np.int32),
            "targets": np.zeros(shape, np.int32),
            "segment_ids": np.zeros(shape, np.int32),
            "mask": np.zeros(shape, np.bool_),
            "target_bytes": np.zeros(shape, np.float32),
        }
        row = 0
        while row < self._layout.rows and self._lanes:
            self._turn %= len(self._lanes)
            if self._pack_row(batch, row, self._turn):
                row += 1
                self._turn += 1
            else:
                del self._lanes[self._turn]  # the lane's last document ended and none is left
        if row == 0:
            raise StopIteration
        first, stride = self._layout.first, self._layout.stride
        return {name: array[first::stride] for name, array in batch.items()}

    def _pack_row(self, batch: Batch, row: int, lane: int) -> bool:
        """Fills one row from one lane; False if there was nothing left to fill it with."""
        position, segment = 0, 0
        sequence, align = self._layout.sequence, self._layout.align
        while position < sequence:
            place = self._place(lane)
            if place is None:
                break
            assert place.document is not None
            tokens, lengths = place.document
            start, stop, length = place.run(self._layout, sequence - position)
            end = position + stop - start
            segment += 1
            batch["inputs"][row, position:end] = tokens[start:stop]
            batch["targets"][row, position:end] = tokens[start + 1 : stop + 1]
            batch["target_bytes"][row, position:end] = lengths[start:stop]
            batch["mask"][row, position:end] = True
            aligned = -(-end // align) * align
            batch["segment_ids"][row, position:aligned] = segment
            position = aligned
            place.offset += stop - start
            if place.offset == length:
                self._lanes[lane] = None
        return position > 0

    def _place(self, lane: int) -> _Lane | None:
        """The lane's place in a document with tokens left, or None if no document is left."""
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
        """Goes to a position that ``get_state`` gave; documents are fetched when next needed.

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
