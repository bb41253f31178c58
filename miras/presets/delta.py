"""Matrix memories with error-correcting updates: the delta rule and least squares, exact."""

import dataclasses

from miras import bias
from miras.layers.config import LayerConfig
from miras.memory import Matrix
from miras.models.config import LanguageModelConfig
from miras.optim import (
    GD,
    Algorithm,
    Implicit,
    MultiStep,
    Newton,
    Preconditioned,
    TwoRateMomentum,
)
from miras.presets.registry import register
from miras.retention import L2, NoRetention, Retention
from miras.rule.rule import Rule


def _delta(
    retention: Retention,
    *,
    decay_first: bool = False,
    keys: str = "plain",
    algorithm: Algorithm | None = None,
    loss: bias.Bias | None = None,
) -> LanguageModelConfig:
    rule = Rule(
        memory=Matrix(),
        bias=loss or bias.L2Loss(),
        retention=retention,
        algorithm=algorithm or GD(lr=0.5),
        order="decay_first" if decay_first else "learn_first",
    )
    layer = LayerConfig(activation="silu", keys=keys)  # pyright: ignore[reportArgumentType]
    return LanguageModelConfig(rule, exact=True, layer=layer)


@register(
    "DeltaNet",
    "Yang et al., arXiv 2406.06484, section 2",
)
def deltanet() -> LanguageModelConfig:
    """The delta rule; its chunked form is `exact=false` with a smaller learning rate."""
    return _delta(NoRetention())


@register(
    "Gated DeltaNet",
    "Yang et al., arXiv 2412.06464, eq. 10",
)
def gated_deltanet() -> LanguageModelConfig:
    """The delta rule at the decayed state."""
    return _delta(L2(decay=0.99), decay_first=True)


@register(
    "Kimi Delta Attention",
    "Kimi Team, arXiv 2510.26692, eq. 1",
)
def kda() -> LanguageModelConfig:
    """Gated DeltaNet with a decay per key channel."""
    return _delta(L2(decay=0.99, granularity="key"), decay_first=True)


@register(
    "Gated DeltaNet-2",
    "arXiv 2605.22791",
)
def gated_deltanet2() -> LanguageModelConfig:
    """KDA with a gate per key channel for what is erased and one per value channel for the write.

        W_t = Diag(alpha_t) W_{t-1};  W_t = W_t + k_t^T (w_t * v_t - (b_t * k_t) W_t)

    As flash-linear-attention computes it. `bias.negative_eigenvalues=true bias.erase=1` doubles b.
    Here b, w and alpha are projected by rank `layer.gate_rank`, there b and w by a full matrix and
    alpha by rank d; queries have no factor d^-1/2, which the norm of the output takes out.
    """
    return _delta(
        L2(decay=0.99, granularity="key"),
        decay_first=True,
        algorithm=GD(lr=1.0, data_dependent=False),
        loss=bias.GatedL2(),
    )


@register(
    "Preconditioned DeltaNet",
    "arXiv 2604.21100",
)
def preconditioned_deltanet() -> LanguageModelConfig:
    """The delta rule, written along keys that are divided by what was written of their channel."""
    return _delta(NoRetention(), algorithm=Preconditioned())


@register(
    "Preconditioned Gated DeltaNet",
    "arXiv 2604.21100",
)
def preconditioned_gated_deltanet() -> LanguageModelConfig:
    """Gated DeltaNet with a diagonal preconditioner; its moment has a decay and a rate of its own.

    As flash-linear-attention computes it, with l2-normalised keys. Its decays start at random
    values per head, these at 0.99; queries have no factor d^-1/2, which the norm of the output
    takes out.
    """
    return _delta(L2(decay=0.99), decay_first=True, algorithm=Preconditioned())


@register(
    "Preconditioned KDA",
    "arXiv 2604.21100",
)
def preconditioned_kda() -> LanguageModelConfig:
    """KDA with the preconditioner of `preconditioned_gated_deltanet`, per head in its decay."""
    return _delta(L2(decay=0.99, granularity="key"), decay_first=True, algorithm=Preconditioned())


@register(
    "RWKV-7",
    "Peng et al., arXiv 2503.14456, section 4",
)
def rwkv7() -> LanguageModelConfig:
    """Two terms per token: an erasure along a normalised key, a write along a modulated one."""
    return _delta(
        L2(decay=0.99, granularity="key"),
        keys="rwkv7",
        algorithm=GD(lr=1.0, data_dependent=False),
    )


@register(
    "Longhorn",
    "Liu et al., arXiv 2407.14207, theorem 3.1",
)
def longhorn() -> LanguageModelConfig:
    """Implicit steps with a rate per value channel, in the dense form (not its diagonal scan)."""
    return _delta(NoRetention(), algorithm=Implicit(lr=1.0, max_lr=4.0, granularity="value"))


@register(
    "DeltaProduct",
    "Siems et al., arXiv 2502.10297, section 3",
)
def deltaproduct() -> LanguageModelConfig:
    """Two delta steps per token, each with its own key, value and rate, after one decay."""
    return _delta(
        L2(decay=0.99), decay_first=True, keys="product", algorithm=MultiStep(lr=0.5, steps=2)
    )


@register(
    "Comba",
    "Hu et al., arXiv 2506.02475, section 3",
)
def comba() -> LanguageModelConfig:
    """The error is read at a scaled key before the decay, as published, and written along k."""
    return _delta(L2(decay=0.99), keys="comba")


@register(
    "Momentum DeltaNet",
    "arXiv 2605.05838, as flash-linear-attention computes it",
)
def momentum_deltanet() -> LanguageModelConfig:
    """Gated DeltaNet with momentum: the error is read at the decayed state.

        M_t = mu_t M_{t-1} + eta_t k_t^T (k_t (alpha_t W_{t-1}) - v_t)
        W_t = alpha_t W_{t-1} - beta_t M_t

    S is -M. An angle from eta ties alpha and beta (`layer.gates`), and the query is corrected by
    the key before the norm (`layer.keys`). The starts of the gates are ours: the paper draws them.
    """
    algorithm = TwoRateMomentum(lr=1.0, max_lr=2.0, momentum=0.5, update_rate=0.5)
    config = _delta(L2(decay=0.99), decay_first=True, keys="corrected", algorithm=algorithm)
    layer = dataclasses.replace(config.layer, gates="angle")
    return dataclasses.replace(config, layer=layer)


@register(
    "MesaNet",
    "von Oswald et al., arXiv 2506.05233, section 2",
)
def mesa() -> LanguageModelConfig:
    """Least squares over the whole decayed history, by conjugate gradient."""
    config = _delta(L2(decay=0.99), algorithm=Newton(lr=0.5, max_lr=1.0))
    return LanguageModelConfig(config.rule, layer=config.layer)
