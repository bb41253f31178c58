"""A mixture: a stream of the rows of several streams, in fixed proportions.

Row n comes from the source s with the least

    (k_s + u_s) / w_s,

where k_s is the number of its rows among the first n, w_s its weight, and u_s in [0, 1) is drawn
from the seed. This is stride scheduling (Waldspurger and Weihl, 1995): the choice is a function of
n and the seed alone, and source s has n w_s / sum(w) of the first n rows, up to the number of
sources.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np

from miras.data.rows import Batch, RowStream


class Source(NamedTuple):
    """A source of a mixture: its weight > 0, its rows and the identity of its data."""

    weight: float
    rows: RowStream
    identity: dict[str, Any]


def mix(sources: list[Source], seed: int | None) -> tuple[MixedRows, dict[str, Any]]:
    """The rows of a mixture, and the identity of the data.

    The order in which the sources are given, and their names, have no effect.

    Args:
        sources: two or more.
        seed: of the choice of sources; None is that of held-out rows.
    """
    ordered = sorted(sources, key=lambda s: (json.dumps(s.identity, sort_keys=True), s.weight))
    total = sum(source.weight for source in sources)
    weights = [source.weight / total for source in ordered]
    identity = {
        "mix": weights,
        "sources": [source.identity for source in ordered],
        "seed": seed,
    }
    return MixedRows([source.rows for source in ordered], weights, seed or 0), identity


class MixedRows:
    """The stream of the rows of several streams (`rows.RowStream`).

    A stream that ends drops out, and the mixture ends with the last one.

    Args:
        streams: of rows.
        weights: of the streams, > 0.
        seed: of the choice of streams.
    """

    def __init__(self, streams: list[RowStream], weights: list[float], seed: int) -> None:
        self._streams, self._weights = streams, np.array(weights)
        self._phases = np.random.default_rng(seed).random(len(streams))
        self._rows = np.zeros(len(streams), np.int64)
        self._ended = np.zeros(len(streams), bool)

    def fill(self, batch: Batch, place: int | None) -> bool:
        """Advance by one row; as in ``RowStream``."""
        while not self._ended.all():
            due = np.where(self._ended, np.inf, (self._rows + self._phases) / self._weights)
            n = int(due.argmin())
            if self._streams[n].fill(batch, place):
                self._rows[n] += 1
                return True
            self._ended[n] = True
        return False

    def get_state(self) -> dict[str, Any]:
        """Returns the position as plain JSON values."""
        return {
            "rows": self._rows.tolist(),
            "streams": [stream.get_state() for stream in self._streams],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores a position from ``get_state``."""
        self._rows = np.array(state["rows"], np.int64)
        self._ended[:] = False  # a stream that has ended says so again
        for stream, position in zip(self._streams, state["streams"], strict=True):
            stream.set_state(position)
