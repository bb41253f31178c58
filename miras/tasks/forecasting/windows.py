"""Windows of series as a stream of rows: the values that are read and those that follow."""

from typing import Any

import numpy as np

from miras.data.rows import Batch


class Windows:
    """Every window of every series of a part, at stride 1 (`miras.data.rows.RowStream`).

    Row n of a pass without shuffling is series n % C of window n // C.

    Args:
        part: [rows, C] float32, standardised.
        lookback: values that are read.
        horizon: values that follow.
        epochs: passes; None is unlimited.
        seed: of a new order in each pass; None keeps the order.
    """

    def __init__(
        self, part: np.ndarray, lookback: int, horizon: int, epochs: int | None, seed: int | None
    ):
        self._part, self._lookback, self._horizon = part, lookback, horizon
        self._count = (len(part) - lookback - horizon + 1) * part.shape[1]
        self._epochs, self._seed = epochs, seed
        self._row = 0
        self._order: tuple[int, np.ndarray] | None = None

    def fill(self, batch: Batch, place: int | None) -> bool:
        """Advance by one row; as in `RowStream`."""
        epoch, row = divmod(self._row, self._count)
        if self._epochs is not None and epoch >= self._epochs:
            return False
        if place is not None:
            window, series = divmod(self._in_order(epoch, row), self._part.shape[1])
            middle = window + self._lookback
            batch["inputs"][place] = self._part[window:middle, series]
            batch["targets"][place] = self._part[middle : middle + self._horizon, series]
            batch["series"][place] = series
            batch["mask"][place] = True
        self._row += 1
        return True

    def _in_order(self, epoch: int, row: int) -> int:
        """The window of a series that a row of a pass is."""
        if self._seed is None:
            return row
        if self._order is None or self._order[0] != epoch:
            order = np.random.default_rng((self._seed, epoch)).permutation(self._count)
            self._order = (epoch, order)
        return int(self._order[1][row])

    def get_state(self) -> dict[str, Any]:
        """The position as plain JSON values."""
        return {"row": self._row}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore a position of `get_state`."""
        self._row = int(state["row"])
