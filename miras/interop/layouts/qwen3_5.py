"""Qwen3.5, dense, as transformers publishes it: Gated DeltaNet, and gated attention.

Scales of norms are published as their difference from 1, but for that of the memory's output. The
text model alone is read; tensors of images and of the prediction of several tokens are left out.
"""

from typing import Any, ClassVar

import numpy as np

from miras.config import FrozenMapping
from miras.interop.layout import Layout, register
from miras.interop.layouts import fla, hybrid
from miras.interop.layouts.gated_deltanet import RULE, signed
from miras.interop.table import SAME, Entry, conv, linear, negated, parts, plus_one
from miras.layers.config import LayerConfig
from miras.layers.head_sizes import head_sizes
from miras.mixers import AttentionMixer
from miras.models.block_config import BlockConfig
from miras.models.config import LanguageModelConfig

_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25}


@register
class Qwen35(Layout):
    """`Qwen3_5ForCausalLM`."""

    model_type = "qwen3_5_text"
    architecture = "Qwen3_5ForCausalLM"
    rounded = ("layernorm.weight", "q_norm.weight", "k_norm.weight", "model.norm.weight")
    defaults: ClassVar[dict[str, Any]] = {
        "vocab_size": 248320,
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_parameters": None,
        "attention_bias": False,
        "tie_word_embeddings": False,
        "full_attention_interval": 4,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_conv_kernel_dim": 4,
    }

    def select(self, config, tensors):
        """The tensors of the text model, by the names that it has alone."""
        return {
            name.replace("model.language_model.", "model."): w
            for name, w in tensors.items()
            if not name.startswith(("model.visual.", "mtp."))
        }

    def config(self, published):
        """See `Layout`."""
        published.only("hidden_act", "silu")
        published.only("attention_bias", False)
        keys, values = published["linear_num_key_heads"], published["linear_num_value_heads"]
        published.check(values % keys == 0, "linear_num_value_heads", f"a multiple of {keys}")
        key, eps = published["linear_key_head_dim"], published["rms_norm_eps"]
        layer = LayerConfig(
            conv=published["linear_conv_kernel_dim"],
            activation="silu",
            gates="scaled",
            rate_bias=False,
            key_width=key,
            value_width=published["linear_value_head_dim"],
            key_heads=keys if values != keys else None,
            initial="zero",
            output_norm_over="shared",
            output_eps=eps * key,
        )
        rope = _ROPE | (published["rope_parameters"] or {})
        published.check(rope["rope_type"] == "default", "rope_parameters", "rope_type 'default'")
        attention = AttentionMixer(
            window=None,
            rope_base=rope["rope_theta"],
            rope_share=rope["partial_rotary_factor"],
            kv_heads=published["num_key_value_heads"],
            head_width=published["head_dim"],
            qk_norm="rms_shared",
            qk_norm_eps=eps,
            gate=True,
        )
        count, every = published["num_hidden_layers"], published["full_attention_interval"]
        usual = ["linear_attention" if (n + 1) % every else "full_attention" for n in range(count)]
        pattern = hybrid.pattern(published, usual)
        block = BlockConfig(attention, heads=published["num_attention_heads"])
        return LanguageModelConfig(
            signed(RULE, False),
            exact=True,
            pattern=pattern,
            blocks=FrozenMapping({"A": block} if "A" in pattern else {}),
            layer=layer,
            width=published["hidden_size"],
            heads=values,
            layers=count,
            vocab=published["vocab_size"],
            mlp_ratio=hybrid.mlp_ratio(published),
            norm_eps=eps,
            tie=published["tie_word_embeddings"],
        )

    def published(self, config):
        """See `Layout`."""
        layer, sizes = config.layer, head_sizes(config.layer, config.width, config.heads)
        block = config.block("A")
        attention: Any = block.mixer
        rope = {
            "rope_theta": attention.rope_base,
            "partial_rotary_factor": attention.rope_share,
        }
        return hybrid.published_fields(config) | {
            "num_attention_heads": block.heads or config.heads,
            "num_key_value_heads": attention.kv_heads,
            "head_dim": attention.head_width,
            "rope_parameters": _ROPE | rope,
            "linear_num_key_heads": sizes.keys,
            "linear_num_value_heads": config.heads,
            "linear_key_head_dim": sizes.key,
            "linear_value_head_dim": sizes.value,
            "linear_conv_kernel_dim": layer.conv,
        }

    def outer(self, config):
        """See `Layout`."""
        return (
            Entry("model.embed_tokens.weight", "embedding", SAME),
            Entry("model.norm.weight", "norm.scale", plus_one(SAME)),
        )

    def block(self, config, letter):
        """See `Layout`."""
        return (
            Entry("input_layernorm.weight", "mixer_norm.scale", plus_one(SAME)),
            Entry("post_attention_layernorm.weight", "mlp_norm.scale", plus_one(SAME)),
            *(_attention(config) if letter == "A" else _linear(config)),
            *hybrid.swiglu(config),
        )


def _linear(config: LanguageModelConfig) -> tuple[Entry, ...]:
    streams, heads = fla.streams(config.layer, config.width, config.heads), config.heads
    rows = dict(zip(streams, parts(*(n * head for n, head in streams.values()))))
    prefix, gates = "linear_attn.", "mixer.fast.gates."
    entries = []
    for name, shape in streams.items():
        ours, at = f"mixer.qkv.{name}.", rows[name]
        kernel, form = f"{ours}linear.kernel", linear(1, *shape)
        entries.append(Entry(f"{prefix}in_proj_qkv.weight", kernel, form, at))
        kernel, form = f"{ours}conv.kernel", conv(1, *shape)
        entries.append(Entry(f"{prefix}conv1d.weight", kernel, form, at))
    decay = f"{gates}kernels.log_decay.kernel"
    return (
        *entries,
        Entry(f"{prefix}in_proj_z.weight", "mixer.gate.kernel", linear(len(rows["v"]))),
        Entry(f"{prefix}in_proj_b.weight", f"{gates}kernels.lr.kernel", linear(heads)),
        Entry(f"{prefix}in_proj_a.weight", decay, negated(linear(heads))),
        Entry(f"{prefix}dt_bias", f"{gates}biases.log_decay", negated(SAME)),
        Entry(f"{prefix}A_log", f"{gates}coupled.log_scale", SAME),
        Entry(f"{prefix}norm.weight", "mixer.norm.scale", SAME),
        Entry(f"{prefix}out_proj.weight", "mixer.out.kernel", linear(config.width)),
    )


def _attention(config: LanguageModelConfig) -> tuple[Entry, ...]:
    """A head's rows of q_proj are those of its queries, then those of its gate."""
    block = config.block("A")
    layer, heads = block.mixer.layer_of(block), block.heads or config.heads
    streams, prefix = fla.streams(layer, config.width, heads), "self_attn."
    head, ours = streams["q"][1], "mixer.qkv."
    pairs = np.arange(2 * heads * head).reshape(heads, 2, head)
    q, z = pairs[:, 0].reshape(-1), pairs[:, 1].reshape(-1)
    return (
        Entry(f"{prefix}q_proj.weight", f"{ours}q.linear.kernel", linear(1, *streams["q"]), q),
        Entry(f"{prefix}q_proj.weight", "mixer.gate.kernel", linear(heads * head), z),
        Entry(f"{prefix}k_proj.weight", f"{ours}k.linear.kernel", linear(1, *streams["k"])),
        Entry(f"{prefix}v_proj.weight", f"{ours}v.linear.kernel", linear(1, *streams["v"])),
        Entry(f"{prefix}q_norm.weight", "mixer.keys.norms.q.scale", plus_one(SAME)),
        Entry(f"{prefix}k_norm.weight", "mixer.keys.norms.k.scale", plus_one(SAME)),
        Entry(f"{prefix}o_proj.weight", "mixer.out.kernel", linear(config.width)),
    )
