"""OLMo-Hybrid as transformers publishes it: Gated DeltaNet, and attention behind norms.

Linear layers norm what goes into a mixer, attention layers what comes out of it; queries and keys
of attention are RMS-normalised over all heads, and have no positions in the released models.
"""

from typing import Any, ClassVar

import numpy as np

from miras.config import FrozenMapping
from miras.interop.layout import Layout, register
from miras.interop.layouts import fla, hybrid
from miras.interop.layouts.gated_deltanet import RULE, gates, signed
from miras.interop.table import SAME, Entry, linear, reshaped
from miras.layers.config import LayerConfig
from miras.layers.head_sizes import head_sizes
from miras.mixers import AttentionMixer
from miras.models.block_config import BlockConfig
from miras.models.config import LanguageModelConfig

_OUTPUT_EPS = 1e-5  # a constant of the layer, which its config does not have


@register
class OlmoHybrid(Layout):
    """`OlmoHybridForCausalLM`."""

    model_type = "olmo_hybrid"
    architecture = "OlmoHybridForCausalLM"
    defaults: ClassVar[dict[str, Any]] = {
        "vocab_size": 100352,
        "hidden_size": 3840,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 30,
        "num_key_value_heads": None,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_parameters": None,
        "attention_bias": False,
        "tie_word_embeddings": False,
        "linear_num_key_heads": None,
        "linear_num_value_heads": None,
        "linear_key_head_dim": None,
        "linear_value_head_dim": None,
        "linear_conv_kernel_dim": 4,
        "linear_allow_neg_eigval": True,
    }

    def select(self, config, tensors):
        """The names of the release, which transformers 5 writes otherwise.

        There one convolution of all streams is cut in three parts of about one size, and norms of
        attention layers take names of linear layers.
        """
        found = dict(tensors)
        sizes = [
            n * head for n, head in fla.streams(config.layer, config.width, config.heads).values()
        ]
        for n in range(config.layers):
            layer = self.layer.format(n)
            if config.letters[n % len(config.letters)] == "A":
                norm = found.pop(f"{layer}feedforward_layer_norm.weight", None)
                if norm is not None:
                    found[f"{layer}post_attention_layernorm.weight"] = norm
                continue
            names = [f"{layer}linear_attn.{stream}_conv1d.weight" for stream in "qkv"]
            if all(name in found for name in names):
                whole = np.concatenate([found[name] for name in names])
                cut = np.split(whole, np.cumsum(sizes)[:-1])
                found |= dict(zip(names, cut))
        return found

    def config(self, published):
        """See `Layout`."""
        published.only("hidden_act", "silu")
        published.only("attention_bias", False)
        width, heads = published["hidden_size"], published["num_attention_heads"]
        keys = published["linear_num_key_heads"] or heads
        values = published["linear_num_value_heads"] or heads
        published.check(values % keys == 0, "linear_num_value_heads", f"a multiple of {keys}")
        key = published["linear_key_head_dim"] or int(0.75 * width / keys)
        layer = LayerConfig(
            conv=published["linear_conv_kernel_dim"],
            activation="silu",
            gates="scaled",
            rate_bias=False,
            key_width=key,
            value_width=published["linear_value_head_dim"] or 2 * key,
            key_heads=keys if values != keys else None,
            initial="zero",
            output_norm_over="shared",
            output_eps=_OUTPUT_EPS * key,
        )
        rope = published["rope_parameters"] or {}
        base = rope.get("rope_theta")
        published.check(
            base is None or rope.get("rope_type", "default") == "default",
            "rope_parameters",
            "none, or those of rope_type 'default'",
        )
        attention = AttentionMixer(
            window=None,
            rope=base is not None,
            rope_base=base or 10000.0,
            kv_heads=published["num_key_value_heads"] or heads,
            head_width=width // heads,
            qk_norm="rms_all",
            qk_norm_eps=published["rms_norm_eps"],
        )
        count = published["num_hidden_layers"]
        usual = ["full_attention" if n % 4 == 3 else "linear_attention" for n in range(count)]
        pattern = hybrid.pattern(published, usual)
        block = BlockConfig(attention, heads=heads, norm="post")
        return LanguageModelConfig(
            signed(RULE, published["linear_allow_neg_eigval"]),
            exact=True,
            pattern=pattern,
            blocks=FrozenMapping({"A": block} if "A" in pattern else {}),
            layer=layer,
            width=width,
            heads=values,
            layers=count,
            vocab=published["vocab_size"],
            mlp_ratio=hybrid.mlp_ratio(published),
            norm_eps=published["rms_norm_eps"],
            tie=published["tie_word_embeddings"],
        )

    def published(self, config):
        """See `Layout`."""
        layer, sizes = config.layer, head_sizes(config.layer, config.width, config.heads)
        block = config.block("A")
        attention: Any = block.mixer
        heads = block.heads or config.heads
        rope = {"rope_type": "default", "rope_theta": attention.rope_base}
        return hybrid.published_fields(config) | {
            "num_attention_heads": heads,
            "num_key_value_heads": attention.kv_heads,
            "rope_parameters": rope if attention.rope else None,
            "linear_num_key_heads": sizes.keys,
            "linear_num_value_heads": config.heads,
            "linear_key_head_dim": sizes.key,
            "linear_value_head_dim": sizes.value,
            "linear_conv_kernel_dim": layer.conv,
            "linear_allow_neg_eigval": config.rule.algorithm.max_lr == 2,
        }

    def outer(self, config):
        """See `Layout`."""
        return (
            Entry("model.embed_tokens.weight", "embedding", SAME),
            Entry("model.norm.weight", "norm.scale", SAME),
        )

    def block(self, config, letter):
        """See `Layout`."""
        if letter == "A":
            return (*_attention(config), *hybrid.swiglu(config))
        return (
            Entry("attention_layer_norm.weight", "mixer_norm.scale", SAME),
            Entry("feedforward_layer_norm.weight", "mlp_norm.scale", SAME),
            *fla.projections(config, norm="o_norm", prefix="linear_attn."),
            *gates(config.heads, "linear_attn."),
            *hybrid.swiglu(config),
        )


def _attention(config: LanguageModelConfig) -> tuple[Entry, ...]:
    block = config.block("A")
    layer, heads = block.mixer.layer_of(block), block.heads or config.heads
    streams, prefix = fla.streams(layer, config.width, heads), "self_attn."
    entries = [
        Entry(f"{prefix}{name}_proj.weight", f"mixer.qkv.{name}.linear.kernel", linear(1, *shape))
        for name, shape in streams.items()
    ]
    norms = [
        Entry(
            f"{prefix}{name}_norm.weight",
            f"mixer.keys.norms.{name}.norm.scale",
            reshaped(1, streams[name][0] * streams[name][1]),
        )
        for name in "qk"
    ]
    return (
        *entries,
        *norms,
        Entry(f"{prefix}o_proj.weight", "mixer.out.kernel", linear(config.width)),
        Entry("post_attention_layernorm.weight", "mixer_norm.scale", SAME),
        Entry("post_feedforward_layernorm.weight", "mlp_norm.scale", SAME),
    )
