"""Deep memories: TTT, Titans and MIRAS's own three models. They are trained in chunks."""

from miras import bias, memory, optim, retention
from miras.layers.config import LayerConfig
from miras.models.config import LanguageModelConfig
from miras.presets.registry import register
from miras.rule import Rule


def _deep_memory() -> memory.MLP:
    """The 2-layer MLP with expansion 4, GELU and x + LN(.) of MIRAS's own three models.

    LayerNorm undoes any shrinking of the weights, and forgetting shrinks them: with a tiny eps a
    memory that has forgotten answers noise of unit variance, at a gain of 1 / sigma that grows
    without bound, and after a thousand tokens rounding errors double every hundred. An eps of 0.1
    lets it answer nothing instead; beside the variance at the start, 0.42 * 4 * dk, it is as good
    as none (docs/streaming.md, "Long texts").
    """
    return memory.MLP(depth=2, expansion=4, activation="gelu", residual=True, norm="layer", eps=0.1)


@register(
    "TTT-Linear",
    "Sun et al., arXiv 2407.04620, section 2",
)
def ttt_linear() -> LanguageModelConfig:
    """A matrix behind a residual LayerNorm with a learned affine, no forgetting."""
    return LanguageModelConfig(
        Rule(
            memory=memory.MLP(depth=1, affine=True),
            bias=bias.L2(),
            retention=retention.NoRetention(),
            algorithm=optim.GD(lr=0.5, max_lr=1.0),
        ),
        layer=LayerConfig(lr_by_position=True),
    )


@register(
    "TTT-MLP",
    "Sun et al., arXiv 2407.04620, section 2",
)
def ttt_mlp() -> LanguageModelConfig:
    """MLP memory with a learned LayerNorm affine and no forgetting."""
    return LanguageModelConfig(
        Rule(
            memory=memory.MLP(affine=True),
            bias=bias.L2(),
            retention=retention.NoRetention(),
            algorithm=optim.GD(lr=0.1, max_lr=0.5),
        ),
        layer=LayerConfig(lr_by_position=True),
    )


@register(
    "Titans (LMM)",
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
        layer=LayerConfig(activation="silu"),
    )


@register(
    "Moneta",
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


@register(
    "Yaad",
    "Behrouz et al., arXiv 2504.13173, section 5.3",
)
def yaad() -> LanguageModelConfig:
    """Huber mixture with a threshold from the token, l2 retention."""
    return LanguageModelConfig(
        Rule(
            memory=_deep_memory(),
            bias=bias.Huber(variant="mixture", delta=5.0),
            retention=retention.L2(decay=0.999),
            algorithm=optim.GD(lr=0.01, max_lr=0.5),
        )
    )


@register(
    "Memora",
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
