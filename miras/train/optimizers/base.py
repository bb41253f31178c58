"""Outer optimisers by name: from the mean gradient of a batch to the direction of the update.

What all of them share, clipping, weight decay, the learning rate and accumulation, is in
`optimizer`.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import optax

from miras.config import Config, require
from miras.config.registry import Registry


@dataclasses.dataclass(frozen=True)
class AxisNames:
    """The logical axes of one parameter; a leaf of a pytree.

    Attributes:
        names: of each dimension, for example ("layers", "embed", "mlp"); None has no name.
        depthwise: whether it has no input channel, as a depthwise convolution.
    """

    names: tuple[str | None, ...]
    depthwise: bool = False

    @property
    def stacked(self) -> int:
        """Leading dimensions that stack one parameter per layer."""
        return len(self.names) - len(self._of_layer)

    @property
    def _of_layer(self) -> tuple[str | None, ...]:
        return tuple(name for name in self.names if name != "layers")

    @property
    def _by_head(self) -> bool:
        """Whether a layer's parameter is a stack of one array per head."""
        names = self._of_layer
        return names[:1] == ("heads",) and not any(names[1:])

    @property
    def decays(self) -> bool:
        """Whether weight decay applies: to matrices, and not to scales, biases and vectors."""
        return len(self._of_layer) - self._by_head >= 2

    @property
    def matrix(self) -> optax.contrib.MuonDimensionNumbers | None:
        """Which dimensions a linear map reduces and makes; None for what is no linear map.

        Memories W0 are one matrix per head. Any other map reduces its first dimension; an unnamed
        one before "heads" counts maps side by side (queries, keys, values). Embeddings, the head's
        matrix, depthwise convolutions and vectors are none.
        """
        names = self._of_layer
        if not self.decays or self.depthwise or "vocab" in names:
            return None
        if self._by_head:
            return optax.contrib.MuonDimensionNumbers((-2,), (-1,))
        side_by_side = names.index("heads") - 1 if "heads" in names[1:] else 0
        first = self.stacked
        return optax.contrib.MuonDimensionNumbers(
            (first,), tuple(range(first + 1 + side_by_side, len(self.names)))
        )


class Setting(NamedTuple):
    """What an optimiser may depend on.

    Attributes:
        beta1: `train.beta1`.
        beta2: `train.beta2`.
        axes: the parameters' axes: a nested dict as the parameters, with leaves `AxisNames`.
    """

    beta1: float
    beta2: float
    axes: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer(Config):
    """An outer optimiser.

    To add one: subclass with frozen fields, implement `direction`, and decorate with
    `@miras.train.optimizers.register("name")`. `miras train --plugin FILE.py optimizer=name` then
    uses it, and the run's folder keeps a copy of the file.
    """

    registry: ClassVar[Registry["Optimizer"]] = Registry("optimizer", "miras.optimizer")

    def direction(self, setting: Setting) -> optax.GradientTransformation:
        """From the clipped mean gradient to a direction d, as the parameters.

        The run then takes the step -learning_rate (d + weight_decay * parameter), so `direction`
        neither negates the gradient nor uses a learning rate: `optax.scale_by_adam()` is one.
        """
        raise NotImplementedError


register = Optimizer.registry.register


@register("adamw")
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW(Optimizer):
    """AdamW (1711.05101) with the moments' decays `train.beta1` and `train.beta2`."""

    def direction(self, setting: Setting) -> optax.GradientTransformation:
        """`optax.scale_by_adam`."""
        return optax.scale_by_adam(b1=setting.beta1, b2=setting.beta2)


@register("lion")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Lion(Optimizer):
    """Lion (2302.06675): the sign of a momentum; take a third to a tenth of AdamW's rate.

    Attributes:
        b1: share of the momentum in the direction, in [0, 1).
        b2: decay of the momentum, in [0, 1).
    """

    b1: float = 0.9
    b2: float = 0.99

    def validate(self) -> None:
        """Check the ranges above."""
        for name in ("b1", "b2"):
            value = getattr(self, name)
            require(0 <= value < 1, f"train.optimizer.{name}={value} must lie in [0, 1).")

    def direction(self, setting: Setting) -> optax.GradientTransformation:
        """`optax.scale_by_lion`."""
        return optax.scale_by_lion(b1=self.b1, b2=self.b2)


@register("muon")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Muon(Optimizer):
    """Muon (https://kellerjordan.github.io/posts/muon/) on linear maps, AdamW on the rest.

    Both use Nesterov momentum. Each matrix of each layer is orthogonalised by itself, each
    memory's W0 of each head too, and queries, keys and values apart; see `AxisNames.matrix`. The
    update is scaled to the root mean square that AdamW's has (2502.16982), so one learning rate
    serves both.

    Attributes:
        beta: decay of the momentum, in [0, 1).
        rms: root mean square of a matrix's update before the learning rate, > 0.
    """

    beta: float = 0.95
    rms: float = 0.2

    def validate(self) -> None:
        """Check the ranges above."""
        require(0 <= self.beta < 1, f"train.optimizer.beta={self.beta} must lie in [0, 1).")
        require(self.rms > 0, f"train.optimizer.rms={self.rms} must be positive.")

    def direction(self, setting: Setting) -> optax.GradientTransformation:
        """`optax.contrib.muon` at the learning rate 1, which it negates."""
        muon = optax.contrib.muon(
            1.0,
            beta=self.beta,
            adam_b1=setting.beta1,
            adam_b2=setting.beta2,
            muon_weight_dimension_numbers=jax.tree.map(lambda axes: axes.matrix, setting.axes),
            consistent_rms=self.rms,
        )
        return optax.chain(muon, optax.scale(-1.0))


@register("adafactor")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Adafactor(Optimizer):
    """Adafactor (1804.04235): second moments by row and column, steps relative to the parameter.

    A layer's parameter is a block of its own, though layers are stacked in one array.

    Attributes:
        decay_rate: the second moments' decay after t updates is 1 - (t + 1)**-decay_rate, > 0.
        min_dim_size_to_factor: sizes from which on a second moment is factored, >= 1.
        multiply_by_parameter_scale: multiply a block's step by the block's root mean square.
    """

    decay_rate: float = 0.8
    min_dim_size_to_factor: int = 128
    multiply_by_parameter_scale: bool = True

    def validate(self) -> None:
        """Check the ranges above."""
        for name in ("decay_rate", "min_dim_size_to_factor"):
            value = getattr(self, name)
            require(value > 0, f"train.optimizer.{name}={value} must be positive.")

    def direction(self, setting: Setting) -> optax.GradientTransformation:
        """`optax.adafactor` without a learning rate, which negates."""
        adafactor = optax.adafactor(
            decay_rate=self.decay_rate,
            min_dim_size_to_factor=self.min_dim_size_to_factor,
            multiply_by_parameter_scale=self.multiply_by_parameter_scale,
        )
        return optax.chain(by_layer(adafactor, setting.axes), optax.scale(-1.0))


def by_layer(transform: optax.GradientTransformation, axes: Any) -> optax.GradientTransformation:
    """A transformation applied to each parameter of each layer alone.

    Args:
        transform: of one array.
        axes: as `Setting.axes`; leading "layers" dimensions are mapped over.
    """

    def mapped(function, names: AxisNames):
        for _ in range(names.stacked):
            function = jax.vmap(function)
        return function

    def init(params: Any) -> Any:
        return jax.tree.map(lambda n, p: mapped(transform.init, n)(p), axes, params)

    def update(updates: Any, state: Any, params: Any = None):
        leaves, tree = jax.tree.flatten(axes)
        parts = zip(
            leaves,
            tree.flatten_up_to(updates),
            tree.flatten_up_to(state),
            tree.flatten_up_to(params),
            strict=True,
        )
        both = [mapped(transform.update, names)(u, s, p) for names, u, s, p in parts]
        return tree.unflatten([u for u, _ in both]), tree.unflatten([s for _, s in both])

    return optax.GradientTransformation(init, update)  # pyright: ignore
