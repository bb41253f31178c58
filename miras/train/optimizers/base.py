"""Outer optimisers by name: each maps the mean gradient of a batch to an update direction.

Clipping, weight decay, the learning rate and accumulation are common to all of them and are in
`miras.train.optimizer`.
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
        names: of each dimension, for example ("layers", "embed", "mlp"), or None.
        depthwise: whether it is the kernel of a depthwise convolution.
    """

    names: tuple[str | None, ...]
    depthwise: bool = False

    @property
    def stacked(self) -> int:
        """Number of leading dimensions that stack one parameter per layer."""
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
        """Whether weight decay applies: to matrices, not to scales, biases and other vectors."""
        return len(self._of_layer) - self._by_head >= 2

    @property
    def matrix(self) -> optax.contrib.MuonDimensionNumbers | None:
        """The input and output dimensions of a linear map; None for other parameters.

        A memory's W0 is one matrix per head. Any other map has its first dimension as input; an
        unnamed dimension before "heads" stacks separate maps (queries, keys, values). Embeddings,
        the output head, depthwise convolutions and vectors are not linear maps.
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
    """The settings of a run that an optimiser may use.

    Attributes:
        beta1: `train.beta1`.
        beta2: `train.beta2`.
        axes: of the parameters, a nested dict of `AxisNames`.
        moments: dtype of first moments and momenta, `train.optimizer_dtype`; that of the gradient
            if None.
    """

    beta1: float
    beta2: float
    axes: Any
    moments: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer(Config):
    """An outer optimiser.

    To add one: subclass with frozen fields, implement `direction`, and decorate with
    `@miras.train.optimizers.register("name")`. `miras train --plugin FILE.py optimizer=name` then
    uses it, and the folder of the run keeps a copy of the file.
    """

    registry: ClassVar[Registry["Optimizer"]] = Registry("optimizer", "miras.optimizer")

    def direction(self, setting: Setting) -> optax.GradientTransformation:
        """The transformation of the clipped mean gradient to a direction d.

        The update is -learning_rate (d + weight_decay * parameter), so `direction` neither negates
        the gradient nor applies a learning rate; `optax.scale_by_adam()` is an example.
        """
        raise NotImplementedError


register = Optimizer.registry.register


@register("adamw")
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW(Optimizer):
    """AdamW (1711.05101) with the decays `train.beta1` and `train.beta2`."""

    def direction(self, setting: Setting) -> optax.GradientTransformation:
        """`optax.scale_by_adam`."""
        return optax.scale_by_adam(b1=setting.beta1, b2=setting.beta2, mu_dtype=setting.moments)


@register("lion")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Lion(Optimizer):
    """Lion (2302.06675): the sign of a momentum; use 1/10 to 1/3 of the learning rate of AdamW.

    Attributes:
        b1: weight of the momentum in the direction, in [0, 1).
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
        return optax.scale_by_lion(b1=self.b1, b2=self.b2, mu_dtype=setting.moments)


@register("muon")
@dataclasses.dataclass(frozen=True, kw_only=True)
class MuonOptimizer(Optimizer):
    """Muon (https://kellerjordan.github.io/posts/muon/) on linear maps, AdamW on the rest.

    Both use Nesterov momentum. Each matrix is orthogonalised separately: those of each layer, the
    W0 of each head, and queries, keys and values; see `AxisNames.matrix`. The update is scaled to
    the root mean square of AdamW's (2502.16982), so that both use one learning rate.

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
            mu_dtype=setting.moments,
        )
        return optax.chain(muon, optax.scale(-1.0))


@register("adafactor")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Adafactor(Optimizer):
    """Adafactor (1804.04235): factored second moments, updates relative to the parameter.

    The parameter of each layer is treated separately, although layers are stacked in one array.

    Attributes:
        decay_rate: the decay of second moments after t updates is 1 - (t + 1)**-decay_rate, > 0.
        min_dim_size_to_factor: smallest dimension of a factored second moment, >= 1.
        multiply_by_parameter_scale: multiply an update by the parameter's root mean square.
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
    """A transformation that is applied to the parameters of each layer separately.

    Args:
        transform: of one array.
        axes: as `Setting.axes`; the transformation is vmapped over leading "layers" dimensions.
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
