"""Mamba-2 (2405.21060) as transformers publishes it.

    W_t = exp(-exp(A_log) dt_t) W_{t-1} + dt_t B_t^T x_t        dt_t = softplus(.)
    y_t = C_t W_t + D x_t

B, C and x are keys, queries and values; neighbouring heads of a group share B and C.
"""

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np

from miras.interop.layout import Layout, register
from miras.interop.table import SAME, Entry, Form, conv, linear, parts, reshaped
from miras.layers.config import LayerConfig
from miras.layers.head_sizes import head_sizes
from miras.mixers import NoChannel
from miras.models.config import LanguageModelConfig
from miras.presets import preset


def _rule():
    rule = preset("mamba2").rule
    retention = dataclasses.replace(rule.retention, per_token=False)
    algorithm = dataclasses.replace(rule.algorithm, lr=0.05, rate_range="positive")
    return dataclasses.replace(rule, retention=retention, algorithm=algorithm)


# log alpha = log sigmoid(b) = -softplus(-b) = -exp(A_log)
_A_LOG = Form(
    lambda w: -_inverse_softplus(np.exp(w.astype(np.float64))),
    lambda w: np.log(np.logaddexp(0, -w.astype(np.float64))),
)


@register
class Mamba2(Layout):
    """`Mamba2ForCausalLM`."""

    model_type = "mamba2"
    architecture = "Mamba2ForCausalLM"
    layer = "backbone.layers.{}."
    rounded = ("mixer.A_log",)
    defaults: ClassVar[dict[str, Any]] = {
        "num_heads": 128,
        "head_dim": 64,
        "vocab_size": 32768,
        "hidden_size": 4096,
        "state_size": 128,
        "num_hidden_layers": 64,
        "layer_norm_epsilon": 1e-5,
        "expand": 2,
        "conv_kernel": 4,
        "n_groups": 8,
        "use_bias": False,
        "use_conv_bias": True,
        "hidden_act": "silu",
        "time_step_limit": [0.0, math.inf],
        "tie_word_embeddings": False,
    }

    def config(self, published):
        """See `Layout`."""
        published.only("use_bias", False)
        published.only("hidden_act", "silu", "swish")
        low, high = published["time_step_limit"]
        if isinstance(high, dict):  # as transformers writes infinity
            high = float(high.get("__float__", "nan"))
        published.check((low, high) == (0, math.inf), "time_step_limit", "[0.0, inf]")
        width, heads = published["hidden_size"], published["num_heads"]
        inner = heads * published["head_dim"]
        published.check(
            int(published["expand"] * width) == inner,
            "expand",
            f"num_heads * head_dim / hidden_size, {inner / width:g}",
        )
        groups = published["n_groups"]
        published.check(heads % groups == 0, "n_groups", f"a divisor of num_heads={heads}")
        layer = LayerConfig(
            conv=published["conv_kernel"],
            conv_bias=published["use_conv_bias"],
            activation="silu",
            qk_norm=None,
            key_width=published["state_size"],
            value_width=published["head_dim"],
            key_heads=groups,
            initial="zero",
            output_norm_over="group",
            output_order="gate_first",
            output_eps=published["layer_norm_epsilon"],
            skip=True,
        )
        return LanguageModelConfig(
            _rule(),
            layer=layer,
            heads=heads,
            width=width,
            vocab=published["vocab_size"],
            layers=published["num_hidden_layers"],
            norm_eps=published["layer_norm_epsilon"],
            channel=NoChannel(),
            tie=published["tie_word_embeddings"],
        )

    def published(self, config):
        """See `Layout`."""
        layer, sizes = config.layer, head_sizes(config.layer, config.width, config.heads)
        return {
            "num_heads": config.heads,
            "head_dim": sizes.value,
            "vocab_size": config.vocab,
            "hidden_size": config.width,
            "state_size": sizes.key,
            "num_hidden_layers": config.layers,
            "layer_norm_epsilon": config.norm_eps,
            "expand": config.heads * sizes.value // config.width,
            "conv_kernel": layer.conv,
            "n_groups": sizes.keys,
            "use_conv_bias": layer.conv_bias,
            "tie_word_embeddings": config.tie,
            "time_step_rank": max(1, -(-config.width // 16)),
        }

    def outer(self, config):
        """See `Layout`."""
        return (
            Entry("backbone.embeddings.weight", "embedding", SAME),
            Entry("backbone.norm_f.weight", "norm.scale", SAME),
        )

    def block(self, config, letter):
        """See `Layout`."""
        layer, heads = config.layer, config.heads
        sizes = head_sizes(layer, config.width, heads)
        inner, keys = heads * sizes.value, (sizes.keys, sizes.key)
        shared = keys[0] * keys[1]
        z, x, b, c, dt = parts(inner, inner, shared, shared, heads)
        gates, norm = "mixer.fast.gates.", (keys[0], inner // keys[0])
        entries = [
            Entry("norm.weight", "mixer_norm.scale", SAME),
            Entry("mixer.in_proj.weight", "mixer.gate.kernel", linear(inner), z),
            Entry("mixer.in_proj.weight", f"{gates}kernels.lr.kernel", linear(heads), dt),
            Entry("mixer.dt_bias", f"{gates}biases.lr", SAME),
            Entry("mixer.A_log", f"{gates}biases.log_decay", _A_LOG),
            Entry("mixer.D", "mixer.skip", SAME),
            Entry("mixer.norm.weight", "mixer.norm.norm.scale", reshaped(*norm)),
            Entry("mixer.out_proj.weight", "mixer.out.kernel", linear(config.width)),
        ]
        streams = {"v": (x, (heads, sizes.value)), "k": (b, keys), "q": (c, keys)}
        for name, (rows, shape) in streams.items():
            ours, own = f"mixer.qkv.{name}.", rows - inner  # the convolution's rows have no gate
            kernel = f"{ours}linear.kernel"
            entries += [
                Entry("mixer.in_proj.weight", kernel, linear(1, *shape), rows),
                Entry("mixer.conv1d.weight", f"{ours}conv.kernel", conv(1, *shape), own),
            ]
            if layer.conv_bias:
                bias = reshaped(1, *shape)
                entries.append(Entry("mixer.conv1d.bias", f"{ours}conv.bias", bias, own))
        return tuple(entries)


def _inverse_softplus(a: np.ndarray) -> np.ndarray:
    """log(exp(a) - 1) without overflow."""
    return a + np.log(-np.expm1(-a))
