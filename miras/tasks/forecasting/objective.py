"""The objective of forecasting: a `Forecaster`, a loss of values, and the errors of papers."""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array
from miras.layers import Health
from miras.models import Forecaster, ForecasterConfig, LanguageModelConfig
from miras.models.objective import PLAIN_LOSS, Batch, Head, LossOptions, Objective, Score, Totals

ValueLoss = Literal["mse", "mae", "huber"]
LOSSES = {"mse": "squared error", "mae": "absolute error", "huber": "Huber loss"}


class ForecastErrors(NamedTuple):
    """How well a model forecasts, over all windows, steps of the horizon and series.

    Attributes:
        loss: the loss that is trained, a mean over values.
        mse: mean squared error of standardised values.
        mae: mean absolute error of standardised values.
        windows: number of windows, of all series.
        lookback: values that were read.
        horizon: values that were predicted.
    """

    loss: float
    mse: float
    mae: float
    windows: int
    lookback: int
    horizon: int

    @property
    def summary(self) -> str:
        """One line for the log."""
        return f"MSE {self.mse:.4f}, MAE {self.mae:.4f} on held-out windows, {self.lengths}"

    @property
    def lengths(self) -> str:
        """Lookback and horizon."""
        return f"lookback {self.lookback}, horizon {self.horizon}"

    @property
    def table(self) -> list[tuple[str, str]]:
        """The lines of `miras eval`."""
        return [
            ("lookback", f"{self.lookback}"),
            ("horizon", f"{self.horizon}"),
            ("windows", f"{self.windows:,}"),
            ("model", f"MSE {self.mse:.4f}, MAE {self.mae:.4f}"),
        ]


class ErrorSums(NamedTuple):
    """Sums over values, which can be added over batches."""

    loss: Array
    squared: Array
    absolute: Array
    rows: Array


@dataclasses.dataclass(frozen=True)
class Forecasting(Objective):
    """A loss of each predicted value, where its error is e.

        mse: e^2,    mae: |e|,    huber: e^2 / 2 if |e| <= 1, otherwise |e| - 1/2

    Attributes:
        ends: of the model.
        kind: of the loss.
    """

    ends: ForecasterConfig
    kind: ValueLoss = "mse"

    score = Score("mse", "mean squared error", less_is_better=True)
    rows = "windows"

    @property
    def label(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The loss in words."""
        return LOSSES[self.kind]

    def build(self, config: LanguageModelConfig, rngs: nnx.Rngs) -> nnx.Module:
        """A `Forecaster`."""
        return Forecaster(config, self.ends, rngs)

    def head(self, config: LanguageModelConfig, tokens: int) -> Head:
        """The horizon from all patches together; the map of each patch, and the one around them."""
        ends = self.ends
        patches = 2.0 * tokens * ends.patch * config.width
        skip = 2.0 * ends.lookback * ends.horizon if ends.skip == "linear" else 0.0
        return Head(tokens * config.width, ends.horizon, by_token=False, others=patches + skip)

    def loss(
        self, model: Any, batch: Batch, options: LossOptions = PLAIN_LOSS
    ) -> tuple[Array, Totals]:
        """The sum over values; each value is a target."""
        sums = self.sums(model, batch)
        return sums.loss, Totals(sums.loss, sums.rows * self.ends.horizon, jnp.zeros(()))

    def sums(self, model: Any, batch: Batch) -> ErrorSums:
        """The errors of a batch."""
        error = model(batch["inputs"], batch["series"]) - batch["targets"]
        mask = jnp.asarray(batch["mask"])
        squared, absolute = jnp.square(error), jnp.abs(error)
        loss = {
            "mse": squared,
            "mae": absolute,
            "huber": jnp.where(absolute <= 1, squared / 2, absolute - 0.5),
        }[self.kind]
        total = lambda x: jnp.sum(x, where=mask[:, None])  # noqa: E731
        rows = jnp.sum(mask, dtype=jnp.float32)
        return ErrorSums(total(loss), total(squared), total(absolute), rows)

    def result(self, sums: ErrorSums) -> ForecastErrors:
        """Means over values."""
        values = max(float(sums.rows) * self.ends.horizon, 1.0)
        return ForecastErrors(
            loss=float(sums.loss) / values,
            mse=float(sums.squared) / values,
            mae=float(sums.absolute) / values,
            windows=int(sums.rows),
            lookback=self.ends.lookback,
            horizon=self.ends.horizon,
        )

    def observe(self, model: Any, batch: Batch) -> Health:
        """Of the memories, over the patches."""
        return model.observe(batch["inputs"], batch["series"])[1]

    def tokens(self, batches: Batch) -> Array:
        """The patches of all rows."""
        return self.ends.patches * jnp.sum(batches["mask"], dtype=jnp.int32)
