"""A table of time series from a CSV or Parquet file, its parts and its standardisation."""

import functools
import hashlib
import os
import pathlib
import re
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from miras.config import require
from miras.errors import ConfigError
from miras.runtime.files import expand_home

_ETT = {"h": 1, "m": 4}  # rows per hour in ETTh1, ETTh2, ETTm1 and ETTm2
_MONTH = 30 * 24
_SEASONS = {3600: 24, 900: 96, 86400: 7, 604800: 52}  # rows of a season, by seconds between rows


class Table(NamedTuple):
    """The series of a file.

    Attributes:
        values: [rows, series] float64.
        names: of the series.
        season: rows of a day (hours, quarters of an hour), a week (days) or a year (weeks); 1 for
            other steps or no times.
        fingerprint: of the file's content.
    """

    values: np.ndarray
    names: tuple[str, ...]
    season: int
    fingerprint: str


def read_table(source: str) -> Table:
    """The columns of numbers of a CSV (plain or compressed) or Parquet file, in its order.

    Other columns, such as the date, are left out; the first of them with times gives the season.

    Raises:
        ConfigError: the file cannot be read, has no column of numbers, or a number is missing.
    """
    try:
        path = expand_home(source)
        status = path.stat()
    except (OSError, RuntimeError, ValueError) as error:
        raise _unreadable(source, error) from error
    return _read(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=4)
def _read(path: pathlib.Path, _changed: int, _size: int) -> Table:
    try:
        parquet = path.suffix.lower() in (".parquet", ".pq")
        table = (pyarrow.parquet.read_table if parquet else pyarrow.csv.read_csv)(os.fspath(path))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _unreadable(os.fspath(path), error) from error
    columns = dict(zip(table.column_names, table.columns, strict=True))
    numbers = {name: x for name, x in columns.items() if _is_number(x.type)}
    if not numbers:
        raise ConfigError(
            f"{path} has no column of numbers, only {', '.join(columns) or 'no columns'}: give a "
            "table with a row for each time and a column for each series."
        )
    values = np.stack([x.to_numpy().astype(np.float64) for x in numbers.values()], axis=1)
    if len(bad := np.argwhere(~np.isfinite(values))):
        row, column = bad[0]
        raise ConfigError(
            f"{path} has no number in row {row + 1} of column {list(numbers)[column]!r}: fill in "
            "missing values, or remove the column."
        )
    season = next((n for x in columns.values() if (n := _season(x)) is not None), 1)
    return Table(values, tuple(numbers), season, digest)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)


def _season(column: pa.ChunkedArray) -> int | None:
    """The rows of a season by the step between times; None for a column that has none."""
    if not (pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)):
        return None
    times = column.to_numpy().astype("datetime64[s]").astype(np.int64)
    return _SEASONS.get(int(np.median(np.diff(times))) if len(times) > 1 else 0, 1)


def _unreadable(source: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"data.source={source!r} cannot be read as a table of series ({error}): give a CSV or "
        "Parquet file with a row for each time and a column for each series."
    )


def part_sizes(source: str, rows: int) -> tuple[int, int, int]:
    """Rows of training, validation and test, as the papers split a file.

    The ETT files (2012.07436) have 12, 4 and 4 months of 30 days, after which rows are left out;
    others have 70 %, the rest, and 20 %, in the order training, validation, test.
    """
    found = re.match(r"ETT([hm])\d", pathlib.PurePath(source).name)
    if found:
        month = _MONTH * _ETT[found[1]]
        return 12 * month, 4 * month, 4 * month
    train, test = int(rows * 0.7), int(rows * 0.2)
    return train, rows - train - test, test


class Parts(NamedTuple):
    """The standardised series of the parts of a table.

    Attributes:
        train: [rows, series] float32.
        validation: as train, with the `lookback` rows before it.
        test: as validation.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split_table(table: Table, sizes: tuple[int, int, int], lookback: int, horizon: int) -> Parts:
    """The parts of a table, standardised by the mean and the standard deviation of training.

    A column that is constant in training is only centred.

    Raises:
        ConfigError: the table has fewer rows, or a part no window.
    """
    train, validation, _ = sizes
    rows = len(table.values)
    require(
        sum(sizes) <= rows,
        f"task.parts={list(sizes)} are {sum(sizes):,} rows, but the table has {rows:,}: use fewer.",
    )
    for name, size in zip(("training", "validation", "test"), sizes, strict=True):
        least = horizon + (lookback if name == "training" else 0)
        require(
            size >= least,
            f"the {name} part has {size:,} rows, too few for task.lookback={lookback} and "
            f"task.horizon={horizon}: use less of them, or give task.parts.",
        )
    require(
        train >= lookback,
        f"the training part has {train:,} rows, fewer than task.lookback={lookback}: use less.",
    )
    known = table.values[:train]
    deviation = known.std(axis=0)
    values = (table.values - known.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    values = values.astype(np.float32)
    middle = train + validation
    return Parts(
        values[:train], values[train - lookback : middle], values[middle - lookback : sum(sizes)]
    )
