"""Memories of a context: attention, which stores it, and the Omega rule, which fits it."""

from miras import bias
from miras.layers.config import LayerConfig
from miras.memory import KV, MLP, Features, GatedMLP, Memory
from miras.models.config import LanguageModelConfig
from miras.optim import Algorithm, Muon, NonParametric, Omega
from miras.presets.registry import register
from miras.retention import L2, NoRetention, Rows
from miras.rule.rule import Rule


def _attention(window: int | None) -> LanguageModelConfig:
    rule = Rule(
        memory=KV(window=window),
        bias=bias.L2Loss(),
        retention=NoRetention(),
        algorithm=NonParametric(),
    )
    layer = LayerConfig(conv=0, qk_norm=None, rope=True, output_norm=False, output_gate=False)
    return LanguageModelConfig(rule, layer=layer)


@register(
    "Transformer",
    "Vaswani et al., arXiv 1706.03762, eq. 1; Nadaraya-Watson in arXiv 2504.13173",
    alias="transformer++",
)
def transformer() -> LanguageModelConfig:
    """Softmax attention with RoPE in Llama's blocks, called Transformer++ in papers."""
    return _attention(None)


@register(
    "Sliding-window attention",
    "Beltagy et al., arXiv 2004.05150, section 3.1",
    alias="swa",
)
def sliding_window() -> LanguageModelConfig:
    """Attention over the last 64 tokens."""
    return _attention(64)


def _omega(inner: Memory, algorithm: Algorithm) -> LanguageModelConfig:
    """Monomials up to degree 2 before a deep memory; heads of 16, since features grow as D^2."""
    rule = Rule(
        memory=Features(inner=inner, map="polynomial", degree=2),
        bias=bias.L2Loss(),
        retention=L2(decay=0.999),
        algorithm=algorithm,
    )
    return LanguageModelConfig(rule, heads=8, layer=LayerConfig(activation="silu"))


def _mlp() -> MLP:
    return MLP(hidden=32, residual=False, norm="layer")


@register(
    "OmegaNet",
    "Behrouz et al., arXiv 2505.23735, section 3",
)
def omeganet() -> LanguageModelConfig:
    """The Omega rule with momentum on a window of 4 tokens."""
    return _omega(_mlp(), Omega(lr=0.002, max_lr=0.05, window=4, weight=0.8, momentum=0.5))


@register(
    "Atlas",
    "Behrouz et al., arXiv 2505.23735, section 4",
)
def atlas() -> LanguageModelConfig:
    """OmegaNet with Muon as the algorithm."""
    return _omega(_mlp(), Muon(lr=0.01, max_lr=0.2, window=4, weight=0.8, momentum=0.5))


@register(
    "Atlas++",
    "Behrouz et al., arXiv 2505.23735, section 4",
    name="atlas++",
)
def atlas_plus_plus() -> LanguageModelConfig:
    """Atlas with a gated MLP memory."""
    inner = GatedMLP(hidden=32, norm="layer")
    return _omega(inner, Muon(lr=0.01, max_lr=0.2, window=4, weight=0.8, momentum=0.5))


@register(
    "LaCT",
    "Zhang et al., arXiv 2505.23884, section 3",
)
def lact() -> LanguageModelConfig:
    """SwiGLU fast weights, one orthogonalised step per chunk; the paper's chunks have 2048 tokens.

    The step is that of the official code for video and view synthesis: one quintic for all five
    Newton-Schulz iterations. The code for language models has one per iteration:
    algorithm.quintics="five". It also has one learning rate per weight matrix, here one for all.
    """
    rule = Rule(
        memory=GatedMLP(expansion=2),
        bias=bias.Dot(),
        retention=Rows(link_every="chunk"),
        algorithm=Muon(lr=0.1, max_lr=1.0, every="chunk", lr_at="gradient"),
        read="snapshot",
    )
    return LanguageModelConfig(rule, chunk=64, layer=LayerConfig(activation="silu"))
