"""Deep memories: TTT, Titans and MIRAS's own three models. They are trained in chunks."""

from miras import bias, memory, optim, retention
from miras.layers.config import LayerConfig
from miras.models.config import LanguageModelConfig
from miras.presets.registry import register
from miras.rule.rule import Rule


def _deep_memory() -> memory.MLP:
    """The 2-layer MLP with expansion 4, GELU and x + LN(.) of MIRAS's own three models.

    LayerNorm undoes any shrinking of the weights, and forgetting shrinks them: with a tiny eps a
    memory that has forgotten answers noise of unit variance, at a gain of 1 / sigma that grows
    without bound, and after a thousand tokens rounding errors double every hundred. An eps of 0.1
    lets it answer nothing instead; beside the variance at the start, 0.42 * 4 * dk, it is as good
    as none (docs/streaming.md, "Long texts").
    """
    return memory.MLP(depth=2, expansion=4, activation="gelu", residual=True, norm="layer", eps=0.1)


def _ttt(depth: int, algorithm: optim.GD) -> LanguageModelConfig:
    """TTT as its official code has it (ttt-lm-jax), where the docstrings say nothing else.

    As there: chunks of 16; M(k) = k + LN(f(k)) fitted to v, that is LN(f(k)) to v - k; LN's scale
    and shift per head from the outer loop; biases beside the matrices in the inner one; a token
    reads the snapshot less r_t times the sum of its chunk's steps so far, r_t = max(0, 1 / (1 + i)
    + a learned offset), i its position in the chunk; a chunk leaves the weights of its last token.

    Otherwise: keys and queries have unit norm, where the code leaves them as they are and divides
    the rate by D: eta_t = max_lr sigmoid(.) stands for base_lr sigmoid(.) / D times |k|^2 = D.
    They come of three projections and convolutions, where the code has one projection for q and k,
    no convolution of v, and RoPE by the position in the chunk. What is read is normalised per head
    by its root mean square and gated by a SiLU, where the code has one LayerNorm over all heads and
    a GELU. W0 starts at unit variance, where the code has a standard deviation of 0.02.
    """
    return LanguageModelConfig(
        Rule(
            memory=memory.MLP(depth=depth, affine=True, biases=True),
            bias=bias.L2(),
            retention=retention.NoRetention(),
            algorithm=algorithm,
        )
    )


@register(
    "TTT-Linear",
    "Sun et al., arXiv 2407.04620, section 2, and ttt-lm-jax",
)
def ttt_linear() -> LanguageModelConfig:
    """A matrix and a bias behind a residual LayerNorm with a learned affine, no forgetting."""
    return _ttt(1, optim.GD(lr=0.5, max_lr=1.0, averaged=True))


@register(
    "TTT-MLP",
    "Sun et al., arXiv 2407.04620, section 2, and ttt-lm-jax",
)
def ttt_mlp() -> LanguageModelConfig:
    """MLP memory with biases and a learned LayerNorm affine, no forgetting.

    The range of its rate is that of TTT-Linear, where the official code has a tenth of it: hidden
    units start with unit variance here, and the mean of a chunk's steps is to lower the inner loss.
    """
    return _ttt(2, optim.GD(lr=0.25, max_lr=1.0, averaged=True))


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
