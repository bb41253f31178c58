"""RWKV-7 (2503.14456) as flash-linear-attention publishes it.

    x^s_t = x_t + mu_s (x_{t-1} - x_t) for s in r, w, k, v, a, g
    log w_t = -exp(-1/2) sigmoid(d_0 + tanh(x^w_t A_w) B_w)
    v_t = v_t + sigmoid(v_0 + x^v_t A_v B_v) * (v^1_t - v_t), v^1 of the first layer
    y_t = (LayerNorm(r_t W_t) + (sum_i r_k r_t k_t) v_t) * (sigmoid(x^g_t A_g) B_g)

Queries are r. The first layer has no projection for its own mix of values, which does nothing.
"""

import math
from typing import Any

import numpy as np

from miras.interop.layout import Layout, register
from miras.interop.layouts import fla
from miras.interop.published import Published
from miras.interop.table import SAME, Entry, Form, linear, negated, reshaped
from miras.layers.config import LayerConfig
from miras.mixers.channel import MLPChannel, hidden_width
from miras.models.config import LanguageModelConfig
from miras.presets import preset

RULE = preset("rwkv7").rule
_BOUND = math.exp(-0.5)
_TOKENS = Form(lambda w: w.reshape(-1), lambda w: w.reshape(1, 1, -1))
# Of the shares of each stream of tokens, and of the low-rank projections: theirs, ours.
_STREAMS = {"r": "q", "w": "gates", "k": "k", "v": "v", "a": "rates", "g": "output"}
_RANKS = {"decay": "gate_rank", "gate": "output_gate_rank", "a": "rate_rank", "v": "value_rank"}


@register
class RWKV7(Layout):
    """`RWKV7ForCausalLM`."""

    model_type = "rwkv7"
    architecture = "RWKV7ForCausalLM"
    defaults = fla.DEFAULTS | {
        "num_hidden_layers": 24,
        "head_dim": 64,
        "num_heads": None,
        "decay_low_rank_dim": 64,
        "gate_low_rank_dim": 128,
        "a_low_rank_dim": 64,
        "v_low_rank_dim": 16,
        "hidden_act": "sqrelu",
        "norm_first": True,
        "norm_bias": True,
        "norm_eps": 1e-5,
        "fuse_norm": True,
        "value_dim": None,
    }

    def select(self, config, tensors):
        """The names of the second version: the first has the shares of all streams in one."""
        found = dict(tensors)
        for name in tensors:
            if name.endswith("attn.x_x"):
                rows = np.asarray(found.pop(name)).reshape(len(_STREAMS), 1, 1, -1)
                for stream, row in zip("rwkvag", rows):
                    found[f"{name.removesuffix('x_x')}x_{stream}"] = row
        return found

    def config(self, published):
        """See `Layout`."""
        published.only("attn", None)
        published.only("hidden_act", "sqrelu")
        published.only("norm_bias", True)
        width, layers = published["hidden_size"], published["num_hidden_layers"]
        published.only("value_dim", None, width, [width] * layers)
        heads = _heads(published)
        hidden = published["intermediate_size"] or _default_hidden(published)
        published.check(hidden % 8 == 0, "intermediate_size", "a multiple of 8")
        ranks: Any = {o: _rank(published, f"{name}_low_rank_dim") for name, o in _RANKS.items()}
        layer = LayerConfig(
            conv=0,
            qk_norm=None,
            keys="rwkv7",
            initial="zero",
            token_shift=True,
            value_residual=True,
            erase_eps=1e-6 if published["fuse_norm"] else 1e-24,
            gate_activation="tanh",
            decay_bound=_BOUND,
            bonus=True,
            output_norm_kind="layer",
            output_eps=published["norm_eps"] * (width // heads),
            output_gate_by="none",
            **ranks,
        )
        return LanguageModelConfig(
            RULE,
            exact=True,
            heads=heads,
            layer=layer,
            vocab=published["vocab_size"],
            width=width,
            layers=layers,
            mlp_ratio=hidden / width,
            norm_eps=published["norm_eps"],
            norm_kind="layer",
            embedding_norm=published["norm_first"],
            channel=MLPChannel("squared_relu", token_shift=True),
            tie=published["tie_word_embeddings"],
        )

    def published(self, config):
        """See `Layout`."""
        layer, width = config.layer, config.width
        own = {"hidden_act": "sqrelu", "norm_first": config.embedding_norm, "norm_bias": True}
        ranks = {f"{name}_low_rank_dim": getattr(layer, ours) for name, ours in _RANKS.items()}
        return (
            fla.published_fields(config)
            | own
            | ranks
            | {
                "head_dim": width // config.heads,
                "num_heads": config.heads,
                "value_dim": [width] * config.layers,
                "fuse_norm": layer.erase_eps == 1e-6,
            }
        )

    def outer(self, config):
        """See `Layout`."""
        entries = [
            Entry("model.embeddings.weight", "embedding", SAME),
            *_norm("model.norm", "norm"),
        ]
        if config.embedding_norm:
            entries += _norm("model.layers.0.pre_norm", "embedding_norm")
        return tuple(entries)

    def block(self, config, letter):
        """See `Layout`."""
        layer, heads, width = config.layer, config.heads, config.width
        hidden, head = hidden_width(width, config.mlp_ratio), width // heads
        each, flat = linear(heads, head), reshaped(heads, head)
        fast = "mixer.fast.gates."
        low = [
            ("w", f"{fast}kernels.log_decay", f"{fast}biases.log_decay", layer.gate_rank),
            ("a", "mixer.keys.rate", "mixer.keys.rate_bias", layer.rate_rank),
            ("v", "mixer.residual.share", "mixer.residual.bias", layer.value_rank),
        ]
        entries = [
            *_norm("attn_norm", "mixer_norm"),
            *_norm("ffn_norm", "mlp_norm"),
            *(Entry(f"attn.x_{s}", f"mixer.shift.share.{o}", _TOKENS) for s, o in _STREAMS.items()),
            Entry("attn.k_k", "mixer.keys.erase", flat),
            Entry("attn.k_a", "mixer.keys.mix", flat),
            Entry("attn.r_k", "mixer.bonus", SAME),
            Entry("attn.g_norm.weight", "mixer.norm.scale", flat),
            Entry("attn.g_norm.bias", "mixer.norm.bias", flat),
            Entry("attn.o_proj.weight", "mixer.out.kernel", linear(width)),
            Entry("attn.g_lora.lora.0.weight", "mixer.gate.down.kernel", _down(layer)),
            Entry("attn.g_lora.lora.2.weight", "mixer.gate.up.kernel", linear(width)),
            Entry("ffn.x_k", "mlp.shift.share.up", SAME),
            Entry("ffn.key.weight", "mlp.mlp.up.kernel", linear(hidden)),
            Entry("ffn.value.weight", "mlp.mlp.down.kernel", linear(width)),
        ]
        for theirs, ours in {"r": "q", "k": "k", "v": "v"}.items():
            kernel = f"mixer.qkv.{ours}.linear.kernel"
            entries.append(Entry(f"attn.{theirs}_proj.weight", kernel, linear(1, heads, head)))
        for name, kernel, bias, rank in low:
            signed = negated if name == "w" else lambda form: form  # ours grow with the decay
            prefix = f"attn.{name}_lora.lora."
            entries += [
                Entry(f"{prefix}0.weight", f"{kernel}.down", linear(rank)),
                Entry(f"{prefix}2.weight", f"{kernel}.up", signed(each)),
                Entry(f"{prefix}2.bias", bias, signed(flat)),
            ]
        return tuple(entries)

    def absent(self, config, n):
        """See `Layout`: the first layer's mix of values."""
        if n:
            return {}
        each, rank = (config.heads, config.width // config.heads), config.layer.value_rank
        return {
            "mixer.residual.share.down": (config.width, rank),
            "mixer.residual.share.up": (rank, *each),
            "mixer.residual.bias": each,
        }


def _down(layer: LayerConfig) -> Form:
    assert layer.output_gate_rank is not None
    return linear(layer.output_gate_rank)


def _norm(theirs: str, ours: str) -> list[Entry]:
    """A LayerNorm."""
    return [
        Entry(f"{theirs}.weight", f"{ours}.scale", SAME),
        Entry(f"{theirs}.bias", f"{ours}.bias", SAME),
    ]


def _heads(published: Published) -> int:
    """From `head_dim`, and from `num_heads` without one."""
    width, head = published["hidden_size"], published["head_dim"]
    heads = published["num_heads"] if head is None else width // head
    published.check(
        bool(heads) and width % heads == 0 and head in (None, width // heads),
        "head_dim",
        f"a divisor of hidden_size={width}, or none beside such a num_heads",
    )
    return heads


def _default_hidden(published: Published) -> int:
    """As `RWKV7FeedForward` chooses it: a multiple of 32."""
    return -(-int(published["hidden_size"] * (published["hidden_ratio"] or 4)) // 32) * 32


def _rank(published: Published, name: str) -> int:
    """The rank, or the one that `RWKV7Attention` chooses."""
    if published[name] is not None:
        return published[name]
    width: Any = published["hidden_size"]
    head = width // _heads(published)
    factor = {"gate": 5.0, "v": 1.7 * head / 64}.get(name.partition("_")[0], 2.5 * head / 64)
    return max(32, int(round(factor * width**0.5 / 32) * 32))
