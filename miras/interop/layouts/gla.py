"""Gated linear attention (2312.06635) as flash-linear-attention publishes it.

log alpha_t = log sigmoid(g_t) / 16,  g_t = x W_1 W_2 + b per key channel
"""

import dataclasses

from miras.interop.layout import Layout, register
from miras.interop.layouts import fla, fla_hybrid
from miras.interop.table import Entry, linear, reshaped
from miras.layers.config import LayerConfig
from miras.layers.head_sizes import head_sizes
from miras.models.config import LanguageModelConfig
from miras.presets import preset
from miras.retention.base import MIN_LOG

RULE = preset("gla").rule
_NORMALISER, _RANK = 16, 16  # constants of the layer, which its config does not have


@register
class GLA(Layout):
    """`GLAForCausalLM`."""

    model_type = "gla"
    architecture = "GLAForCausalLM"
    defaults = fla.DEFAULTS | {
        "num_hidden_layers": 24,
        "num_heads": 4,
        "num_kv_heads": None,
        "expand_k": 0.5,
        "expand_v": 1.0,
        "feature_map": None,
        "use_short_conv": False,
        "conv_size": 4,
        "use_output_gate": True,
        "clamp_min": None,
        "elementwise_affine": True,
    }

    def config(self, published):
        """See `Layout`."""
        heads = published["num_heads"]
        kv_heads = fla.kv_heads(published)
        published.only("feature_map", None)
        published.only("elementwise_affine", True)
        published.only("fuse_norm", True)
        key, value = (fla.head_width(published, f"expand_{x}") for x in "kv")
        conv = published["conv_size"] if published["use_short_conv"] else 0
        layer = LayerConfig(
            conv=conv,
            activation="silu" if conv else None,
            qk_norm=None,
            decay_power=1 / _NORMALISER,
            gate_rank=_RANK,
            key_width=key,
            value_width=value,
            kv_heads=kv_heads,
            initial="zero",
            output_norm_over="shared",
            output_eps=fla.output_eps(published, key),
            output_gate=published["use_output_gate"],
        )
        least = published["clamp_min"]
        rule = RULE
        if least is not None:
            retention = dataclasses.replace(RULE.retention, min_log_decay=least)
            rule = dataclasses.replace(RULE, retention=retention)
        fields = fla.model_fields(published) | fla_hybrid.model_fields(published)
        return LanguageModelConfig(rule, heads=heads, layer=layer, **fields)

    def published(self, config):
        """See `Layout`."""
        layer, least = config.layer, config.rule.retention.min_log_decay
        return (
            fla.published_fields(config)
            | fla_hybrid.published_fields(config)
            | {
                "num_heads": config.heads,
                "num_kv_heads": layer.kv_heads,
                **fla.expansions(config),
                "use_output_gate": layer.output_gate,
                "use_short_conv": layer.conv > 0,
                "conv_size": layer.conv or 4,
                "clamp_min": None if least == MIN_LOG else least,
            }
        )

    def outer(self, config):
        """See `Layout`."""
        return fla.outer()

    def block(self, config, letter):
        """See `Layout`."""
        if letter != "M":
            return (*fla.around(config), *fla_hybrid.attention(config, letter))
        sizes = head_sizes(config.layer, config.width, config.heads)
        ours, shape = "mixer.fast.gates.", (sizes.values, sizes.key)
        down, up = (f"{ours}kernels.log_decay.{name}" for name in ("down", "up"))
        norm = "g_norm_swish_gate" if config.layer.output_gate else "g_norm"
        return (
            *fla.around(config),
            *fla.projections(config, norm),
            Entry("attn.gk_proj.0.weight", down, linear(_RANK)),
            Entry("attn.gk_proj.1.weight", up, linear(*shape)),
            Entry("attn.gk_proj.1.bias", f"{ours}biases.log_decay", reshaped(*shape)),
        )
