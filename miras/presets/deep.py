"""Deep memories, updated in chunks: TTT, Titans, and MIRAS's Moneta, Yaad and Memora."""

from miras import bias, memory, optim, retention
from miras.layers.config import LayerConfig
from miras.models.config import LanguageModelConfig
from miras.presets.registry import register
from miras.rule.rule import Rule


def _deep_memory() -> memory.MLP:
    """The 2-layer MLP with expansion 4, GELU and x + LN(.) of MIRAS's three models.

    Forgetting shrinks the weights, and LayerNorm undoes it: with a tiny eps, a memory that has
    forgotten outputs noise of unit variance with an unbounded gain 1 / sigma, and after a thousand
    tokens rounding errors double every hundred tokens. With an eps of 0.1 its output vanishes
    instead; relative to the initial variance, 0.42 * 4 * dk, that eps is negligible
    (docs/streaming.md, "Long texts").
    """
    return memory.MLP(depth=2, expansion=4, activation="gelu", residual=True, norm="layer", eps=0.1)


def _ttt(depth: int, algorithm: optim.GD) -> LanguageModelConfig:
    """TTT as in its official code (ttt-lm-jax), except for the differences below.

    The same: chunks of 16; M(k) = k + LN(f(k)) is fitted to v, that is LN(f(k)) to v - k; the outer
    loop learns LN's scale and shift per head; the inner loop also learns biases; a token reads the
    snapshot minus r_t times the sum of its chunk's steps so far, with r_t = max(0, 1 / (1 + i) + a
    learned offset) and i its position in the chunk; a chunk ends with its last token's weights.

    Different: keys and queries have unit norm, while the code does not normalise them and divides
    the rate by D (eta_t = max_lr sigmoid(.) replaces base_lr sigmoid(.) / D times |k|^2 = D). There
    are three projections and convolutions, while the code has one projection for q and k, no
    convolution of v, and RoPE by the position in the chunk. The output has RMSNorm per head and a
    SiLU gate, while the code has one LayerNorm over all heads and a GELU. W0 has unit variance,
    while the code uses a standard deviation of 0.02.
    """
    return LanguageModelConfig(
        Rule(
            memory=memory.MLP(depth=depth, affine=True, biases=True),
            bias=bias.L2Loss(),
            retention=retention.NoRetention(),
            algorithm=algorithm,
        )
    )


@register(
    "TTT-Linear",
    "Sun et al., arXiv 2407.04620, section 2, and ttt-lm-jax",
)
def ttt_linear() -> LanguageModelConfig:
    """A matrix and a bias, then a residual LayerNorm with a learned affine; no forgetting."""
    return _ttt(1, optim.GD(lr=0.5, max_lr=1.0, averaged=True))


@register(
    "TTT-MLP",
    "Sun et al., arXiv 2407.04620, section 2, and ttt-lm-jax",
)
def ttt_mlp() -> LanguageModelConfig:
    """MLP memory with biases and a learned LayerNorm affine, no forgetting.

    Its learning rate has the range of TTT-Linear's; the official code uses a tenth of it. Hidden
    units have unit variance at initialisation here, and the mean step of a chunk must lower the
    inner loss.
    """
    return _ttt(2, optim.GD(lr=0.25, max_lr=1.0, averaged=True))


@register(
    "Titans (LMM)",
    "Behrouz et al., arXiv 2501.00663, eq. 12-14",
)
def titans_lmm() -> LanguageModelConfig:
    """Titans' neural memory alone, with momentum and forgetting; all gates depend on the token."""
    return LanguageModelConfig(
        Rule(
            memory=_deep_memory(),
            bias=bias.L2Loss(),
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
    """Huber mixture with a threshold that depends on the token, l2 retention."""
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
            bias=bias.L2Loss(),
            retention=retention.KL(scale=32.0, axis=0, link_every="chunk", decay=0.999),
            algorithm=optim.GD(lr=0.02, max_lr=0.5),
        )
    )
