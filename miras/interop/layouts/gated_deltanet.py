"""Gated DeltaNet (2412.06464) as flash-linear-attention publishes it.

beta_t = sigmoid(b_t), times 2 with allow_neg_eigval
log alpha_t = -exp(A) softplus(a_t + dt_bias) = exp(A) log sigmoid(-(a_t + dt_bias))
"""

import dataclasses

from miras.interop.layout import Layout, register
from miras.interop.layouts import fla, fla_hybrid
from miras.interop.table import SAME, Entry, linear, negated
from miras.layers.config import LayerConfig
from miras.layers.head_sizes import head_sizes
from miras.models.config import LanguageModelConfig
from miras.presets import preset
from miras.rule.rule import Rule

RULE = preset("gated_deltanet").rule


@register
class GatedDeltaNet(Layout):
    """`GatedDeltaNetForCausalLM`."""

    model_type = "gated_deltanet"
    architecture = "GatedDeltaNetForCausalLM"
    defaults = fla.DEFAULTS | {
        "num_hidden_layers": 21,
        "num_heads": 6,
        "num_v_heads": None,
        "head_dim": 256,
        "expand_v": 2.0,
        "use_gate": True,
        "use_short_conv": True,
        "conv_size": 4,
        "allow_neg_eigval": False,
        "output_gate_activation": "swish",
    }

    def config(self, published):
        """See `Layout`."""
        published.only("output_gate_activation", "swish", "silu")
        key, keys = published["head_dim"], published["num_heads"]
        values = published["num_v_heads"] or keys
        published.check(values % keys == 0, "num_v_heads", f"a multiple of num_heads={keys}")
        value = round(key * published["expand_v"])
        published.check(
            abs(value - key * published["expand_v"]) < 1e-6, "expand_v", "a whole width of values"
        )
        layer = LayerConfig(
            conv=published["conv_size"] if published["use_short_conv"] else 0,
            activation="silu",
            gates="scaled",
            rate_bias=False,
            key_width=key,
            value_width=value,
            key_heads=keys if values != keys else None,
            initial="zero",
            output_norm_over="shared",
            output_eps=fla.output_eps(published, key),
            output_gate=published["use_gate"],
        )
        rule = signed(RULE, published["allow_neg_eigval"])
        fields = fla.model_fields(published) | fla_hybrid.model_fields(published)
        return LanguageModelConfig(rule, exact=True, heads=values, layer=layer, **fields)

    def published(self, config):
        """See `Layout`."""
        layer, sizes = config.layer, head_sizes(config.layer, config.width, config.heads)
        return (
            fla.published_fields(config)
            | fla_hybrid.published_fields(config)
            | {
                "num_heads": layer.key_heads or config.heads,
                "num_v_heads": config.heads if layer.key_heads else None,
                "head_dim": sizes.key,
                "expand_v": sizes.value / sizes.key,
                "use_gate": layer.output_gate,
                "use_short_conv": layer.conv > 0,
                "conv_size": layer.conv or 4,
                "allow_neg_eigval": config.rule.algorithm.max_lr == 2,
            }
        )

    def outer(self, config):
        """See `Layout`."""
        return fla.outer()

    def block(self, config, letter):
        """See `Layout`."""
        if letter != "M":
            return (*fla.around(config), *fla_hybrid.attention(config, letter))
        return (
            *fla.around(config),
            *fla.projections(config, norm="o_norm"),
            *gates(config.heads, "attn."),
        )


def signed(rule: Rule, negative: bool) -> Rule:
    """A delta rule with rates in (0, 2), whose transitions may have negative eigenvalues.

    Siems et al., 2411.12537.
    """
    top = 2.0 if negative else 1.0
    algorithm = dataclasses.replace(rule.algorithm, lr=top / 2, max_lr=top)
    return dataclasses.replace(rule, algorithm=algorithm)


def gates(heads: int, prefix: str) -> tuple[Entry, ...]:
    """The projections of rates and decays."""
    ours = "mixer.fast.gates."
    return (
        Entry(f"{prefix}b_proj.weight", f"{ours}kernels.lr.kernel", linear(heads)),
        Entry(f"{prefix}a_proj.weight", f"{ours}kernels.log_decay.kernel", negated(linear(heads))),
        Entry(f"{prefix}dt_bias", f"{ours}biases.log_decay", negated(SAME)),
        Entry(f"{prefix}A_log", f"{ours}coupled.log_scale", SAME),
    )
