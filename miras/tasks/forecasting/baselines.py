"""Baselines of forecasting in closed form, by the errors of the same windows."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from miras.tasks.forecasting.table import Parts

PENALTY = 100.0


class Errors(NamedTuple):
    """Means over windows, horizon and series of standardised values."""

    mse: float
    mae: float


def seasonal_naive(part: np.ndarray, lookback: int, horizon: int, season: int) -> Errors:
    """The last season that a window has is repeated.

    Args:
        part: [rows, C], from the first value that is read.
        lookback: values that are read, >= season.
        horizon: values that follow.
        season: its rows.
    """
    at = lookback - season + np.arange(horizon) % season
    return _errors(x[:, at] - y for x, y in _windows(part, lookback, horizon))


def ridge(parts: Parts, lookback: int, horizon: int, penalty: float = PENALTY) -> Errors:
    """Ridge regression of what follows on what is read, both without the window's mean.

        W = (X'X + penalty I)^-1 X'Y,      forecast = (x - mean(x)) W + mean(x)

    over the training windows of each series, with one W for all series (2403.14587 calls it an
    instance-normalised linear model). There is no constant.

    Args:
        parts: of the table.
        lookback: values that are read.
        horizon: values that follow.
        penalty: > 0.
    """
    square, product = penalty * np.eye(lookback), 0.0
    for x, y in _windows(parts.train, lookback, horizon):
        mean = x.mean(axis=1, keepdims=True)
        square = square + (x - mean).T @ (x - mean)
        product = product + (x - mean).T @ (y - mean)
    weights = np.linalg.solve(square, product)

    def residuals() -> Iterator[np.ndarray]:
        for x, y in _windows(parts.test, lookback, horizon):
            mean = x.mean(axis=1, keepdims=True)
            yield (x - mean) @ weights + mean - y

    return _errors(residuals())


def _windows(
    part: np.ndarray, lookback: int, horizon: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each series, all windows: values read [n, lookback] and following [n, horizon]."""
    for series in part.T.astype(np.float64):
        both = np.lib.stride_tricks.sliding_window_view(series, lookback + horizon)
        yield both[:, :lookback], both[:, lookback:]


def _errors(residuals: Iterator[np.ndarray]) -> Errors:
    each = [(np.mean(np.square(r)), np.mean(np.abs(r))) for r in residuals]
    mse, mae = np.mean(each, axis=0)
    return Errors(float(mse), float(mae))
