"""DeltaNet (2406.06484) as flash-linear-attention publishes it."""

import dataclasses

from miras.interop.layout import Layout, register
from miras.interop.layouts import fla, fla_hybrid
from miras.interop.layouts.gated_deltanet import signed
from miras.interop.table import Entry, linear
from miras.layers.config import LayerConfig
from miras.models.config import LanguageModelConfig
from miras.presets import preset

RULE = preset("deltanet").rule


@register
class DeltaNet(Layout):
    """`DeltaNetForCausalLM`; its `use_output_norm` has no effect there either."""

    model_type = "delta_net"
    architecture = "DeltaNetForCausalLM"
    defaults = fla.DEFAULTS | {
        "num_hidden_layers": 24,
        "num_heads": 16,
        "expand_k": 1.0,
        "expand_v": 1.0,
        "use_gate": False,
        "use_short_conv": True,
        "conv_size": 4,
        "use_beta": True,
        "allow_neg_eigval": False,
        "qk_norm": "l2",
        "qk_activation": "silu",
    }

    def config(self, published):
        """See `Layout`."""
        published.only("qk_norm", "l2")
        published.only("qk_activation", "silu")
        key, value = (fla.head_width(published, f"expand_{x}") for x in "kv")
        layer = LayerConfig(
            conv=published["conv_size"] if published["use_short_conv"] else 0,
            activation="silu",
            rate_bias=False,
            key_width=key,
            value_width=value,
            initial="zero",
            output_norm_over="shared",
            output_eps=fla.output_eps(published, key),
            output_gate=published["use_gate"],
        )
        rule = signed(RULE, published["allow_neg_eigval"])
        if not published["use_beta"]:
            rate = 2.0 if published["allow_neg_eigval"] else 1.0
            constant = dataclasses.replace(RULE.algorithm, lr=rate, data_dependent=False)
            rule = dataclasses.replace(RULE, algorithm=constant)
        heads, fields = (
            published["num_heads"],
            fla.model_fields(published) | fla_hybrid.model_fields(published),
        )
        return LanguageModelConfig(rule, exact=True, heads=heads, layer=layer, **fields)

    def published(self, config):
        """See `Layout`."""
        layer, algorithm = config.layer, config.rule.algorithm
        top = algorithm.max_lr if algorithm.data_dependent else algorithm.lr
        return (
            fla.published_fields(config)
            | fla_hybrid.published_fields(config)
            | {
                "num_heads": config.heads,
                **fla.expansions(config),
                "use_gate": layer.output_gate,
                "use_short_conv": layer.conv > 0,
                "conv_size": layer.conv or 4,
                "use_beta": algorithm.data_dependent,
                "allow_neg_eigval": top == 2,
            }
        )

    def outer(self, config):
        """See `Layout`."""
        return fla.outer()

    def block(self, config, letter):
        """See `Layout`."""
        if letter != "M":
            return (*fla.around(config), *fla_hybrid.attention(config, letter))
        entries = (*fla.around(config), *fla.projections(config, norm="o_norm"))
        if not config.rule.algorithm.data_dependent:
            return entries
        rate = "mixer.fast.gates.kernels.lr.kernel"
        return (*entries, Entry("attn.b_proj.weight", rate, linear(config.heads)))
