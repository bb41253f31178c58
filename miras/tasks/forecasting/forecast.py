"""The task `forecast`: the next values of time series."""

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from miras.config import require
from miras.data.config import BaselineResult, DataConfig, TaskConfig
from miras.models.forecaster_config import ForecasterConfig, count_patches
from miras.parallel.batches import Layout, RowField

if TYPE_CHECKING:
    from miras.data.rows import RowStream
    from miras.models.objective import Objective
    from miras.tasks.forecasting.table import Parts


@TaskConfig.registry.register("forecast")
@dataclasses.dataclass(frozen=True)
class Forecast(TaskConfig):
    """The next `horizon` values of each series of a table from its last `lookback` values.

    `data.source` is a CSV or Parquet file with a row for each time and a column of numbers for each
    series. Its parts are those of the papers (`table.part_sizes`); values are standardised by the
    training part. A row is one window of one series, of all windows at stride 1, and the last batch
    of a pass is not dropped. The model is `miras.models.Forecaster`; a finished run and `miras
    eval` report errors on the test part, evaluations during training are on the validation part.

    Attributes:
        lookback: values that the model reads, >= patch - stride.
        horizon: values that it predicts, >= 1.
        patch: values of a token, >= 1.
        stride: values from one token to the next, in [1, patch].
        affine: whether the instance norm has a learned scale and shift of each series.
        bias: whether the model has biases and positions, see `ForecasterConfig`.
        skip: "linear" adds a linear map of the normalised values to the forecast.
        loss: of each value: "mse", "mae" or "huber", see `objective.Forecasting`.
        series: number of series, which `affine` needs; the command line reads it from the file.
        parts: rows of training, validation and test, in this order from the start of the file; None
            for those of the papers.
        season: rows of a season, for the seasonal baseline, >= 1; None takes it from the step
            between the times of the file.

    Raises:
        ConfigError: a value is out of range.
    """

    reports = "test"

    lookback: int = 96
    horizon: int = 96
    patch: int = 16
    stride: int = 8
    affine: bool = False
    bias: bool = True
    skip: Literal["none", "linear"] = "none"
    loss: Literal["mse", "mae", "huber"] = "mse"
    series: int | None = None
    parts: tuple[int, ...] | None = None
    season: int | None = None

    def validate(self) -> None:
        """Check the ranges above."""
        self._ends(self.series or 1)
        require(
            self.parts is None or (len(self.parts) == 3 and min(self.parts) >= 1),
            f"task.parts={self.parts} must be three numbers of at least 1: the rows of training, "
            "validation and test.",
        )
        require(
            self.season is None or self.season >= 1,
            f"task.season={self.season} must be at least 1, or none.",
        )

    def _ends(self, series: int | None) -> ForecasterConfig:
        names = ("lookback", "horizon", "patch", "stride", "affine", "bias", "skip")
        return ForecasterConfig(**{name: getattr(self, name) for name in names}, series=series)

    def vocabulary(self) -> int:
        """1: values are no tokens."""
        return 1

    def row_tokens(self) -> int:
        """The number of patches."""
        return count_patches(self.lookback, self.patch, self.stride)

    def objective(self, data: DataConfig) -> "Objective":
        """See `miras.tasks.forecasting.objective`."""
        from miras.tasks.forecasting.objective import Forecasting

        del data
        return Forecasting(self._ends(self.series), self.loss)

    def layout(self, data: DataConfig) -> Layout:
        """A window: the values that are read, those that follow, and the number of the series."""
        del data
        return {
            "inputs": RowField((self.lookback,), np.float32),
            "targets": RowField((self.horizon,), np.float32),
            "series": RowField((), np.int32),
            "mask": RowField((), np.bool_),
        }

    def rows(
        self, data: DataConfig, split: str, *, epochs: int | None, shuffle: bool
    ) -> tuple["RowStream", dict[str, Any]]:
        """The windows of a part."""
        from miras.tasks.forecasting.table import read_table
        from miras.tasks.forecasting.windows import Windows

        part = getattr(self.read_parts(data), split)
        seed = data.order_seed(split) if shuffle else None
        identity = {
            "series": read_table(data.source).fingerprint,
            "parts": list(self._sizes(data)),
            "split": split,
            "lookback": self.lookback,
            "horizon": self.horizon,
            "seed": seed,
            "epochs": epochs,
        }
        return Windows(part, self.lookback, self.horizon, epochs, seed), identity

    def settled(self, data: DataConfig) -> "Forecast":
        """With the number of series of the file."""
        from miras.tasks.forecasting.table import read_table

        return dataclasses.replace(self, series=read_table(data.source).values.shape[1])

    def references(self, data: DataConfig) -> list[BaselineResult]:
        """The errors of a seasonal forecast and of a ridge regression on the test part."""
        from miras.tasks.forecasting.baselines import ridge, seasonal_naive
        from miras.tasks.forecasting.table import read_table

        parts, season = self.read_parts(data), self.season or read_table(data.source).season
        season = season if season <= self.lookback else 1
        naive = seasonal_naive(parts.test, self.lookback, self.horizon, season)
        linear = ridge(parts, self.lookback, self.horizon)
        return [
            BaselineResult(f"seasonal naive ({season} of {self.lookback} values)", naive._asdict()),
            BaselineResult(f"ridge ({self.lookback} values less their mean)", linear._asdict()),
        ]

    def read_parts(self, data: DataConfig) -> "Parts":
        """The standardised parts of the table.

        Raises:
            ConfigError: the source is no table of series, or too short.
        """
        from miras.tasks.forecasting.table import read_table, split_table

        return split_table(read_table(data.source), self._sizes(data), self.lookback, self.horizon)

    def _sizes(self, data: DataConfig) -> tuple[int, int, int]:
        from miras.tasks.forecasting.table import part_sizes, read_table

        if self.parts is not None:
            train, validation, test = self.parts
            return train, validation, test
        return part_sizes(data.source, len(read_table(data.source).values))
