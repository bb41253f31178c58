"""Forecaster: the blocks of a model between patches of a series and its next values."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike

from miras.array_typing import Array
from miras.config import require
from miras.layers import Health
from miras.layers.param import LinearGeneral, normal, param
from miras.models.backbone import Backbone
from miras.models.config import LanguageModelConfig
from miras.models.forecaster_config import ForecasterConfig
from miras.models.instance_norm import InstanceNorm


class Forecaster(Backbone):
    """The next values of a series from its last ones; each series is read alone.

    PatchTST (2211.14730), with the blocks of a memory model in place of attention. With the
    normalised values z of `InstanceNorm`, whose end is padded with `stride` copies of the last one,
    the blocks read a token per patch,

        u_n = W_p z[n S : n S + P] + b_p + e_n,          n = 0 .. N - 1

    and the head maps all of their outputs y_n together to the horizon, after which the norm is
    reversed:

        forecast = denorm(W_h [y_0, ..., y_{N-1}] + b_h + W_s z)

    where W_s, of the values z without padding, exists with `ends.skip` only, and b_p, e_n and b_h
    with `ends.bias` only.

    Args:
        config: of the blocks; `vocab`, `tie` and what else belongs to words is not used.
        ends: see `ForecasterConfig`.
        rngs: stream `params`.
    """

    def __init__(self, config: LanguageModelConfig, ends: ForecasterConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.ends = ends
        width, patches = config.width, ends.patches
        self.instance_norm = InstanceNorm(ends.series if ends.affine else None)
        self.patch = LinearGeneral((ends.patch, width), (None, "embed"), rngs)
        if ends.bias:
            self.patch_bias = param(jnp.zeros(width), ("embed",))
            self.position = normal(rngs, (patches, width), (None, "embed"), 0.02)
            self.head_bias = param(jnp.zeros(ends.horizon), (None,))
        self.head = LinearGeneral((patches * width, ends.horizon), ("embed", None), rngs)
        if ends.skip == "linear":
            self.skip = LinearGeneral((ends.lookback, ends.horizon), (None, None), rngs, start=0.0)

    def __call__(self, values: ArrayLike, series: ArrayLike | None = None) -> Array:
        """The next values.

        Args:
            values: [B, lookback] float, a row for each series.
            series: [B] int, which series a row is of, in [0, ends.series); needed with
                `ends.affine` only.

        Returns:
            [B, horizon], float32 (float64 if the values are).

        Raises:
            ConfigError: for values or series of another shape.
        """
        return self._forward(values, series, health=False)[0]

    def observe(self, values: ArrayLike, series: ArrayLike | None = None) -> tuple[Array, Health]:
        """As `__call__`, with the memories' health over the patches, leaves [memory layers]."""
        return self._forward(values, series, health=True)

    def _forward(
        self, values: ArrayLike, series: ArrayLike | None, health: bool
    ) -> tuple[Array, Any]:
        known, which = self._checked(values, series)
        normed, statistics = self.instance_norm(known, which)
        tokens = self.patch(self._patches(normed))
        if self.ends.bias:
            tokens = tokens + self.patch_bias[...] + self.position[...]
        if tokens.dtype != jnp.float64:
            tokens = tokens.astype(self.config.dtype)
        y, _, found = self.apply_blocks(tokens, health=health)
        flat = y.reshape(*y.shape[:-2], -1).astype(normed.dtype)
        out = self.head(flat)
        if self.ends.bias:
            out = out + self.head_bias[...]
        if self.ends.skip == "linear":
            out = out + self.skip(normed)
        return self.instance_norm.reverse(out, statistics, which), found

    def _patches(self, values: Array) -> Array:
        """Patches [B, N, P] of values [B, lookback]."""
        ends = self.ends
        padded = jnp.pad(values, ((0, 0), (0, ends.stride)), mode="edge")
        at = ends.stride * jnp.arange(ends.patches)[:, None] + jnp.arange(ends.patch)
        return padded[:, at]

    def _checked(self, given: ArrayLike, series: ArrayLike | None) -> tuple[Array, Array | None]:
        values = jnp.asarray(given)
        require(
            values.ndim == 2
            and values.shape[1] == self.ends.lookback
            and jnp.issubdtype(values.dtype, jnp.floating),
            f"values have shape {values.shape} and dtype {values.dtype}: they must be floats [B, "
            f"lookback={self.ends.lookback}], a row for each series.",
        )
        values = values.astype(jnp.promote_types(jnp.float32, values.dtype))
        if not self.ends.affine:
            return values, None
        shape = None if series is None else jnp.shape(series)
        require(
            shape == values.shape[:1],
            f"series has shape {shape}: with affine=true it must be integers [B] = "
            f"{values.shape[:1]}, which series each row is of.",
        )
        return values, jnp.asarray(series)
