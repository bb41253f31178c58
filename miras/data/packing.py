"""Packs documents into rows, with a position that can be saved and restored.

Several documents are read in parallel, one per *lane*, and rows are taken from lanes in turn, so
that consecutive rows come from different documents. The position is a few integers: the next
document, and the document and offset of each lane.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from miras.data.rows import Batch
from miras.data.tokenized import TokenizedDocument


@dataclasses.dataclass(frozen=True)
class PackingSpec:
    """The shape of the rows and their order.

    Attributes:
        sequence: tokens per row, a multiple of ``align``.
        align: segments start at multiples of it.
        lanes: documents read in parallel.
        rotate: seed of a random row at which each document starts and to which it wraps around;
            None starts at the first row. Rows share no state, so the order of the rows of a
            document does not matter, and early batches are not only the beginnings of files.
    """

    sequence: int
    align: int = 1
    lanes: int = 1
    rotate: int | None = None


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


class PackedRows:
    """The stream of packed rows of tokenized documents (`rows.RowStream`).

    A row is filled with consecutive documents. A document that does not fit is split, and the next
    row of the lane continues with the following token, so that every id is a target exactly once.
    The next document starts at a multiple of ``align``; the gap before it has the segment id of the
    previous document and is masked out. The rest of a row at the end of the data has segment id 0.

    A row that is skipped costs the tokens of its documents all the same, since where the next row
    begins depends on their number.

    Args:
        documents: random access to ``TokenizedDocument``.
        spec: the shape of the rows.
    """

    def __init__(self, documents: Any, spec: PackingSpec) -> None:
        self._documents = documents
        self._spec = spec
        self._next = 0
        self._turn = 0
        self._lanes: list[_Lane | None] = [None] * spec.lanes

    def fill(self, batch: Batch, place: int | None) -> bool:
        """Advance by one row; as in ``RowStream``."""
        while self._lanes:
            self._turn %= len(self._lanes)
            if self._pack_row(batch, place, self._turn):
                self._turn += 1
                return True
            del self._lanes[self._turn]  # the lane is exhausted
        return False

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
            "next": self._next,
            "turn": self._turn,
            "lanes": [None if lane is None else [lane.index, lane.offset] for lane in self._lanes],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores a position from ``get_state``; documents are fetched when needed."""
        self._next = int(state["next"])
        self._turn = int(state["turn"])
        self._lanes = [
            None if place is None else _Lane(int(place[0]), int(place[1]))
            for place in state["lanes"]
        ]
