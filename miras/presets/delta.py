"""Matrix memories with error-correcting updates: the delta rule and least squares, exact."""

from miras import bias
from miras.layers.config import LayerConfig
from miras.memory import Matrix
from miras.models.config import LanguageModelConfig
from miras.optim import GD, Algorithm, Implicit, MultiStep, Newton
from miras.presets.registry import register
from miras.retention import L2, NoRetention, Retention
from miras.rule.rule import Rule


def _delta(
    retention: Retention,
    *,
    decay_first: bool = False,
    keys: str = "plain",
    algorithm: Algorithm | None = None,
) -> LanguageModelConfig:
    rule = Rule(
        memory=Matrix(),
        bias=bias.L2(),
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
    "MesaNet",
    "von Oswald et al., arXiv 2506.05233, section 2",
)
def mesa() -> LanguageModelConfig:
    """Least squares over the whole decayed history, by conjugate gradient."""
    config = _delta(L2(decay=0.99), algorithm=Newton(lr=0.5, max_lr=1.0))
    return LanguageModelConfig(config.rule, layer=config.layer)
