"""ForecasterConfig: the config of the ends of a forecaster."""

import dataclasses
from typing import Literal

from miras.config import Config, require


@dataclasses.dataclass(frozen=True)
class ForecasterConfig(Config):
    """The ends of a forecaster.

    Attributes:
        lookback: values that it reads, >= patch - stride.
        horizon: values that it predicts, >= 1.
        patch: values of a token, >= 1.
        stride: values from one token to the next, in [1, patch].
        affine: whether the instance norm has a learned scale and shift of each series.
        series: number of series that `affine` tells apart; None without it.
        bias: whether there are biases and positions. Without them, less of a forecast is
            independent of the values that are read, such as a trend of the training part.
        skip: what is added to the head's forecast: "none", or "linear", a linear map of the
            normalised values.

    Raises:
        ConfigError: a value is out of range, or `affine` lacks the number of series.
    """

    lookback: int = 96
    horizon: int = 96
    patch: int = 16
    stride: int = 8
    affine: bool = False
    series: int | None = None
    bias: bool = True
    skip: Literal["none", "linear"] = "none"

    def validate(self) -> None:
        """Check the ranges above."""
        for name in ("lookback", "horizon", "patch", "stride"):
            value = getattr(self, name)
            require(value >= 1, f"{name}={value} must be at least 1.")
        require(
            self.stride <= self.patch,
            f"stride={self.stride} must be at most patch={self.patch}: no value may be left out.",
        )
        require(
            self.lookback + self.stride >= self.patch,
            f"lookback={self.lookback} is too short for patch={self.patch}: use "
            f"patch={self.lookback} or less.",
        )
        require(
            not self.affine or self.series is not None,
            "affine=true needs the number of series: give series.",
        )
        require(
            self.series is None or self.series >= 1,
            f"series={self.series} must be at least 1, or none.",
        )

    @property
    def patches(self) -> int:
        """Number of tokens, see `count_patches`."""
        return count_patches(self.lookback, self.patch, self.stride)


def count_patches(lookback: int, patch: int, stride: int) -> int:
    """Patches of a window whose end is padded by a stride; at least 1, also for invalid values.

    floor((lookback + stride - patch) / stride) + 1
    """
    return max(1, (lookback + stride - patch) // max(stride, 1) + 1)
