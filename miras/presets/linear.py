"""Hebbian matrix memories: linear attention and its gates. They are exact at any chunk."""

from miras import bias
from miras.layers.config import LayerConfig
from miras.memory import Matrix
from miras.models.config import LanguageModelConfig
from miras.optim import GD
from miras.presets.registry import register
from miras.retention import L2, NoRetention, Retention, Trapezoidal
from miras.rule.rule import Rule

SILU = LayerConfig(activation="silu")


def _hebbian(
    retention: Retention, layer: LayerConfig | None = None, algorithm: GD | None = None
) -> LanguageModelConfig:
    algorithm = algorithm or GD(lr=1.0, data_dependent=False)
    rule = Rule(memory=Matrix(), bias=bias.Dot(), retention=retention, algorithm=algorithm)
    return LanguageModelConfig(rule, layer=layer or LayerConfig())


@register("Linear attention", "Katharopoulos et al., arXiv 2006.16236, eq. 18")
def linear_attention() -> LanguageModelConfig:
    """Hebbian matrix memory without forgetting."""
    return _hebbian(NoRetention())


@register("RetNet", "Sun et al., arXiv 2307.08621, eq. 6")
def retnet() -> LanguageModelConfig:
    """A constant decay 1 - 2^(-5-h) for head h."""
    return _hebbian(L2(decay=31 / 32, spread=0.5, data_dependent=False))


@register(
    "Lightning Attention-2",
    "Qin et al., arXiv 2401.04658, algorithm 1",
)
def lightning() -> LanguageModelConfig:
    """As RetNet, with slopes fixed per head and layer."""
    return _hebbian(
        L2(slopes="alibi", data_dependent=False),
        LayerConfig(activation="silu", decay_by_depth=True),
    )


@register(
    "Decaying fast weights",
    "Mao, arXiv 2210.04243, section 3",
)
def dfw() -> LanguageModelConfig:
    """A decay per row and per column, multiplied."""
    return _hebbian(L2(decay=0.99, granularity="key_value"))


@register("Gated linear attention", "Yang et al., arXiv 2312.06635, section 4")
def gla() -> LanguageModelConfig:
    """A decay per key channel, from the token."""
    return _hebbian(L2(decay=0.99, granularity="key"))


@register(
    "Mamba-2",
    "Dao and Gu, arXiv 2405.21060, section 7",
)
def mamba2() -> LanguageModelConfig:
    """The step size of a token sets both its write strength and its decay."""
    return _hebbian(L2(decay=0.7, discretised=True), SILU, GD(lr=0.05, max_lr=1.0))


@register(
    "Mamba-3",
    "arXiv 2603.15569, as its official code computes it",
)
def mamba3() -> LanguageModelConfig:
    """Mamba-2 whose steps write at both ends, with data-dependent rotations and no convolution.

        W_t = a_t W_{t-1} + eta_t ((1 - lambda_t) a_t k_{t-1}^T v_{t-1} + lambda_t k_t^T v_t)

    with a_t = e^(eta_t A_t), A_t = -softplus(.): the gate `log_decay` is A_t, `lr` is the step
    length eta_t, `trapezoid` is lambda_t. Keys and queries are normalised by their root mean
    square, have biases, and are rotated by pi tanh(.) eta_t further at each token. One input and
    one output a head (SISO); `layer.mimo=4` for the paper's four of each (MIMO), where q_t, k_t and
    v_t have as many rows, see `miras.layers.mimo`.

    The paper's eta_t is softplus(.), here it is below `algorithm.max_lr`; its keys and queries are
    shared by heads, here each head has its own, as in `mamba2`; it rotates the first half of the
    channels, here all; and it adds a multiple of the value to the read, without a norm.
    """
    layer = LayerConfig(
        conv=0,
        qk_norm="rms",
        qk_bias=True,
        rope=True,
        rope_angles="cumulative",
        skip=True,
        output_norm=False,
    )
    retention = Trapezoidal(decay=0.7, discretised=True)
    return _hebbian(retention, layer, GD(lr=0.05, max_lr=1.0))


@register(
    "HGRN2",
    "Qin et al., arXiv 2404.07904, section 3",
)
def hgrn2() -> LanguageModelConfig:
    """A channel is written as much as it forgets: the key is 1 - a_t."""
    return _hebbian(L2(decay=0.9, granularity="key", tied=True), SILU)
