"""Presets: the named models of the literature, as plain config.

Each is a `LanguageModelConfig` at the same small size; `miras.override` changes anything. Constants
that the papers leave open are chosen so that the inner loss falls and the outer gradient is of
order one at the start, for any chunk (docs/concepts.md, "Starting points").
"""

import dataclasses
from collections.abc import Callable

from miras import bias, memory, optim, retention
from miras.config import unknown
from miras.models.config import LanguageModelConfig
from miras.rule import Rule


@dataclasses.dataclass(frozen=True)
class Preset:
    """A named model.

    Attributes:
        name: as given to `miras.preset` and to the command line.
        title: as the paper calls it.
        equation: the update in the notation of docs/concepts.md.
        source: paper and equation.
        build: makes the config.
    """

    name: str
    title: str
    equation: str
    source: str
    build: Callable[[], LanguageModelConfig]


PRESETS: dict[str, Preset] = {}


def preset(name: str) -> LanguageModelConfig:
    """The config of a named model; its `rule` is the `Rule`.

    Raises:
        ConfigError: naming the presets and the nearest match.
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return PRESETS[name].build()


def _preset(title: str, equation: str, source: str):
    def decorate(build: Callable[[], LanguageModelConfig]) -> Callable[[], LanguageModelConfig]:
        name = build.__name__
        PRESETS[name] = Preset(name, title, equation, source, build)
        return build

    return decorate


def _deep_memory() -> memory.MLP:
    """The 2-layer MLP with expansion 4, GELU and x + LN(.) of MIRAS's own three models."""
    return memory.MLP(depth=2, expansion=4, activation="gelu", residual=True, norm="layer")


@_preset("Linear attention", "W = W + k^T v", "Katharopoulos et al., arXiv 2006.16236, eq. 18")
def linear_attention() -> LanguageModelConfig:
    """Hebbian matrix memory without forgetting."""
    return LanguageModelConfig(
        Rule(
            memory=memory.Matrix(),
            bias=bias.Dot(),
            retention=retention.NoRetention(),
            algorithm=optim.GD(lr=1.0, data_dependent=False),
        )
    )


@_preset("RetNet", "W = a_h W + k^T v", "Sun et al., arXiv 2307.08621, eq. 6")
def retnet() -> LanguageModelConfig:
    """Hebbian matrix memory, a constant decay 1 - 2^(-5-h) for head h."""
    return LanguageModelConfig(
        Rule(
            memory=memory.Matrix(),
            bias=bias.Dot(),
            retention=retention.L2(decay=31 / 32, spread=0.5, data_dependent=False),
            algorithm=optim.GD(lr=1.0, data_dependent=False),
        )
    )


@_preset(
    "DeltaNet, chunked form",
    "W = W - b_t k^T (k W_r - v)",
    "Yang et al., arXiv 2406.06484, section 2; errors read at the chunk's snapshot",
)
def deltanet() -> LanguageModelConfig:
    """Delta rule on a matrix; b_t starts at 1/16, so that 16 equal keys do not overshoot."""
    return LanguageModelConfig(
        Rule(
            memory=memory.Matrix(),
            bias=bias.L2(),
            retention=retention.NoRetention(),
            algorithm=optim.GD(lr=1 / 16),
        ),
        activation="silu",
    )


@_preset(
    "TTT-MLP",
    "W = W - eta_t / (1 + i) grad 1/2 ||k + LN(MLP_W(k)) - v||^2, i the position in the chunk",
    "Sun et al., arXiv 2407.04620, section 2",
)
def ttt_mlp() -> LanguageModelConfig:
    """MLP memory with a learned LayerNorm affine and no forgetting."""
    return LanguageModelConfig(
        Rule(
            memory=memory.MLP(affine=True),
            bias=bias.L2(),
            retention=retention.NoRetention(),
            algorithm=optim.GD(lr=0.05, max_lr=0.5),
        ),
        lr_by_position=True,
    )


@_preset(
    "Titans (LMM)",
    "S = mu_t S - theta_t grad 1/2 ||M(k) - v||^2;  W = (1 - a_t) W + S",
    "Behrouz et al., arXiv 2501.00663, eq. 12-14",
)
def titans_lmm() -> LanguageModelConfig:
    """Titans' neural memory alone: momentum and forgetting, all from the token."""
    return LanguageModelConfig(
        Rule(
            memory=_deep_memory(),
            bias=bias.L2(),
            retention=retention.L2(decay=0.999),
            algorithm=optim.Momentum(lr=0.01, max_lr=0.25, momentum=0.5),
        ),
        activation="silu",
    )


@_preset(
    "Moneta",
    "A = a_t A - eta_t grad 1/3 ||M(k) - v||_3^3;  W = A / ||A||_4^2",
    "Behrouz et al., arXiv 2504.13173, eq. 24",
)
def moneta() -> LanguageModelConfig:
    """l_p bias with p = 3, l_q retention with q = 4."""
    return LanguageModelConfig(
        Rule(
            memory=_deep_memory(),
            bias=bias.Lp(p=3.0),
            retention=retention.Lq(q=4.0, form="printed", link_every="chunk", decay=0.999),
            algorithm=optim.GD(lr=1e-4, max_lr=2e-3),
        )
    )


@_preset(
    "Yaad",
    "W = a_t W - eta_t (grad 1/2 ||r||^2 if ||r|| <= delta_t else delta_t grad ||r||_1)",
    "Behrouz et al., arXiv 2504.13173, section 5.3",
)
def yaad() -> LanguageModelConfig:
    """Huber mixture with a threshold from the token, l2 retention."""
    return LanguageModelConfig(
        Rule(
            memory=_deep_memory(),
            bias=bias.Huber(variant="mixture", delta=5.0),
            retention=retention.L2(decay=0.999),
            algorithm=optim.GD(lr=0.02, max_lr=0.5),
        )
    )


@_preset(
    "Memora",
    "W = c softmax(a_t log W - eta_t grad 1/2 ||M(k) - v||^2)",
    "Behrouz et al., arXiv 2504.13173, section 5.3 and eq. 21",
)
def memora() -> LanguageModelConfig:
    """l2 bias, KL retention on the scaled simplex."""
    return LanguageModelConfig(
        Rule(
            memory=_deep_memory(),
            bias=bias.L2(),
            retention=retention.KL(scale=32.0, axis=0, link_every="chunk", decay=0.999),
            algorithm=optim.GD(lr=0.02, max_lr=0.5),
        )
    )
