"""Batches of rows from a stream of rows, with a position that can be saved and restored.

The streams are packed text (`packing`), rows of a task (`task_loader`), rows of a prepared set
(`prepared.rows`) and mixtures of these (`mixture`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import grain
import numpy as np

from miras.errors import ConfigError
from miras.parallel.batches import Layout, RowField

Batch = dict[str, np.ndarray]


def token_layout(sequence: int) -> Layout:
    """The arrays of a row of tokens, see `miras.data.make_loader`."""
    dtypes = {
        "inputs": np.int32,
        "targets": np.int32,
        "segment_ids": np.int32,
        "mask": np.bool_,
        "target_bytes": np.float32,
    }
    return {name: RowField((sequence,), dtype, over_time=True) for name, dtype in dtypes.items()}


class RowStream(Protocol):
    """Rows in a fixed order, one after another.

    To add one: implement these three methods. What `fill` writes for the n-th row depends on n
    alone, never on which earlier rows were written or skipped.
    """

    def fill(self, batch: Batch, place: int | None) -> bool:
        """Advance by one row.

        Args:
            batch: of zeros at `place`, as of `empty_batch`.
            place: the row of `batch` to write to; None skips the row.

        Returns:
            False if no row is left, and nothing is written.
        """
        ...

    def get_state(self) -> dict[str, Any]:
        """The position as plain JSON values."""
        ...

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore a position of `get_state`."""
        ...


def empty_batch(rows: int, sequence: int) -> Batch:
    """A batch of empty rows of tokens: arrays [rows, sequence] of zeros, to be filled."""
    return empty_rows(rows, token_layout(sequence))


def empty_rows(rows: int, layout: Layout) -> Batch:
    """A batch of empty rows: arrays [rows, *shape] of zeros, to be filled."""
    return {name: np.zeros((rows, *field.shape), field.dtype) for name, field in layout.items()}


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


class RowBatches(grain.DatasetIterator[Batch]):
    """Iterator of batches [rows of this process, ...] of a stream.

    Its state is the position of the stream and the identity of the data; it names no process.

    Args:
        stream: of rows.
        batch: rows of a batch, over all processes.
        layout: the arrays of a row; a number of tokens stands for `token_layout`.
        own: the rows of each batch that are returned, in this order; None returns all.
        identity: plain values that identify the data; restoring a position of other data raises
            an error.
    """

    def __init__(
        self,
        stream: RowStream,
        batch: int,
        layout: Layout | int,
        own: Sequence[int] | None = None,
        identity: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._stream, self._batch = stream, batch
        self._layout = token_layout(layout) if isinstance(layout, int) else layout
        own = range(batch) if own is None else own
        self._places = {row: place for place, row in enumerate(own)}
        self._identity = identity or {}

    def __next__(self) -> Batch:
        """Returns the next batch; the last one of a finite pass is padded with empty rows."""
        self._assert_not_closed()
        batch = empty_rows(len(self._places), self._layout)
        for row in range(self._batch):
            if not self._stream.fill(batch, self._places.get(row)):
                if row == 0:
                    raise StopIteration
                break
        return batch

    def get_state(self) -> dict[str, Any]:
        """Returns the position as plain JSON values."""
        return {"identity": dict(self._identity), **self._stream.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores a position from ``get_state``.

        Raises:
            ConfigError: the position was saved while reading other data.
        """
        check_identity(state["identity"], self._identity)
        self._stream.set_state(state)

    def __str__(self) -> str:
        return f"RowBatches of {type(self._stream).__name__}"
