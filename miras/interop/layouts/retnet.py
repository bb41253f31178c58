"""RetNet (2307.08621) as flash-linear-attention publishes it: decays 1 - 2^(-5-h), RoPE."""

from miras.interop.layout import Layout, register
from miras.interop.layouts import fla, fla_hybrid
from miras.layers.config import LayerConfig
from miras.models.config import LanguageModelConfig
from miras.presets import preset

RULE = preset("retnet").rule


@register
class RetNet(Layout):
    """`RetNetForCausalLM`; its `use_short_conv` and `conv_size` have no effect there either."""

    model_type = "retnet"
    architecture = "RetNetForCausalLM"
    defaults = fla.DEFAULTS | {
        "num_hidden_layers": 24,
        "hidden_ratio": 2,
        "num_heads": 8,
        "num_kv_heads": None,
        "expand_k": 1.0,
        "expand_v": 2.0,
        "feature_map": None,
        "use_output_gate": True,
        "elementwise_affine": True,
    }

    def config(self, published):
        """See `Layout`."""
        heads = published["num_heads"]
        published.only("num_kv_heads", None, heads)
        published.only("feature_map", None)
        published.only("elementwise_affine", True)
        published.only("fuse_norm", True)
        key, value = (fla.head_width(published, f"expand_{x}") for x in "kv")
        published.check(key % 2 == 0, "expand_k", "an even width of a head's keys")
        layer = LayerConfig(
            conv=0,
            qk_norm=None,
            rope=True,
            key_width=key,
            value_width=value,
            initial="zero",
            output_norm_over="shared",
            output_eps=fla.output_eps(published, key),
            output_gate=published["use_output_gate"],
        )
        fields = fla.model_fields(published) | fla_hybrid.model_fields(published)
        return LanguageModelConfig(RULE, heads=heads, layer=layer, **fields)

    def published(self, config):
        """See `Layout`."""
        layer = config.layer
        return (
            fla.published_fields(config)
            | fla_hybrid.published_fields(config)
            | {
                "num_heads": config.heads,
                **fla.expansions(config),
                "use_output_gate": layer.output_gate,
            }
        )

    def outer(self, config):
        """See `Layout`."""
        return fla.outer()

    def block(self, config, letter):
        """See `Layout`."""
        if letter != "M":
            return (*fla.around(config), *fla_hybrid.attention(config, letter))
        norm = "g_norm_swish_gate" if config.layer.output_gate else "g_norm"
        return (*fla.around(config), *fla.projections(config, norm))
