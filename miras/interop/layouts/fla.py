"""What the layouts of flash-linear-attention share: embedding, norms, SwiGLU and projections.

https://github.com/fla-org/flash-linear-attention
"""

from typing import Any

from miras.interop.published import Published
from miras.interop.table import SAME, Entry, conv, linear
from miras.layers.config import LayerConfig
from miras.layers.head_sizes import head_sizes
from miras.mixers.channel import hidden_width
from miras.models.config import LanguageModelConfig

DEFAULTS = {
    "hidden_size": 2048,
    "hidden_ratio": 4,
    "intermediate_size": None,
    "hidden_act": "swish",
    "norm_eps": 1e-6,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
    "attn": None,
    "attnres_block_size": None,
}


def model_fields(published: Published) -> dict[str, Any]:
    """The fields of the model outside of its memories."""
    published.only("attnres_block_size", None)
    published.only("hidden_act", "swish")
    width = published["hidden_size"]
    hidden = published["intermediate_size"] or _default_hidden(width, published["hidden_ratio"])
    published.check(hidden % 8 == 0, "intermediate_size", "a multiple of 8")
    return {
        "vocab": published["vocab_size"],
        "width": width,
        "layers": published["num_hidden_layers"],
        "mlp_ratio": hidden / width,
        "norm_eps": published["norm_eps"],
        "tie": published["tie_word_embeddings"],
    }


def published_fields(config: LanguageModelConfig) -> dict[str, Any]:
    """The inverse of `model_fields`."""
    return {
        "vocab_size": config.vocab,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "intermediate_size": hidden_width(config.width, config.mlp_ratio),
        "hidden_act": "swish",
        "norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie,
        "use_cache": True,
    }


def head_width(published: Published, expansion: str) -> int:
    """The width of a head, of the width of all, `expansion` times that of the tokens."""
    total, heads = published["hidden_size"] * published[expansion], published["num_heads"]
    whole = round(total)
    published.check(
        abs(total - whole) < 1e-6 and whole % heads == 0,
        expansion,
        f"a number times hidden_size={published['hidden_size']} that num_heads={heads} divides",
    )
    return whole // heads


def kv_heads(published: Published) -> int | None:
    """The heads of keys and values, of which each serves neighbouring heads of queries."""
    heads, grouped = published["num_heads"], published["num_kv_heads"]
    published.check(
        grouped is None or (grouped >= 1 and heads % grouped == 0),
        "num_kv_heads",
        f"none, or a divisor of num_heads={heads}",
    )
    return None if grouped == heads else grouped


def expansions(config: LanguageModelConfig) -> dict[str, float]:
    """The inverse of `head_width` for keys and values."""
    sizes = head_sizes(config.layer, config.width, config.heads)
    return {
        "expand_k": config.heads * sizes.key / config.width,
        "expand_v": config.heads * sizes.value / config.width,
    }


def output_eps(published: Published, key_width: int) -> float:
    """The eps of the output's norm without the factor 1 / sqrt(key_width) on queries.

    RMSNorm(o / sqrt(d); eps) = RMSNorm(o; d eps).
    """
    return published["norm_eps"] * key_width


def outer() -> tuple[Entry, ...]:
    """Embedding and last norm."""
    return (
        Entry("model.embeddings.weight", "embedding", SAME),
        Entry("model.norm.weight", "norm.scale", SAME),
    )


def around(config: LanguageModelConfig) -> tuple[Entry, ...]:
    """The norms and the SwiGLU of a block."""
    hidden = hidden_width(config.width, config.mlp_ratio)
    return (
        Entry("attn_norm.weight", "mixer_norm.scale", SAME),
        Entry("mlp_norm.weight", "mlp_norm.scale", SAME),
        Entry("mlp.gate_proj.weight", "mlp.gate.kernel", linear(hidden)),
        Entry("mlp.up_proj.weight", "mlp.up.kernel", linear(hidden)),
        Entry("mlp.down_proj.weight", "mlp.down.kernel", linear(config.width)),
    )


def projections(config: LanguageModelConfig, norm: str, prefix: str = "attn.") -> tuple[Entry, ...]:
    """Queries, keys, values and what becomes of the read; `norm` is its tensor's name."""
    layer = config.layer
    entries = []
    for name, shape in streams(layer, config.width, config.heads).items():
        ours = f"mixer.qkv.{name}"
        kernel = Entry(f"{prefix}{name}_proj.weight", f"{ours}.linear.kernel", linear(1, *shape))
        entries.append(kernel)
        if layer.conv:
            tensor = f"{prefix}{name}_conv1d.weight"
            entries.append(Entry(tensor, f"{ours}.conv.kernel", conv(1, *shape)))
    inner = config.heads * head_sizes(layer, config.width, config.heads).value
    if layer.output_gate:
        entries.append(Entry(f"{prefix}g_proj.weight", "mixer.gate.kernel", linear(inner)))
    entries.append(Entry(f"{prefix}{norm}.weight", "mixer.norm.scale", SAME))
    entries.append(Entry(f"{prefix}o_proj.weight", "mixer.out.kernel", linear(config.width)))
    return tuple(entries)


def streams(layer: LayerConfig, width: int, heads: int) -> dict[str, tuple[int, int]]:
    """Heads and width of queries, keys and values."""
    sizes = head_sizes(layer, width, heads)
    return {
        "q": (sizes.queries, sizes.key),
        "k": (sizes.keys, sizes.key),
        "v": (sizes.values, sizes.value),
    }


def _default_hidden(width: int, ratio: int | None) -> int:
    """As `GatedMLP` chooses it: a multiple of 256."""
    return -(-int(width * (ratio or 4) * 2 / 3) // 256) * 256
