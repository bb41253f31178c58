"""The published layouts, a file each: a config mapping and a table of names."""

from miras.interop.layouts import (
    delta_net,
    gated_deltanet,
    gla,
    mamba2,
    olmo_hybrid,
    qwen3_5,
    retnet,
    rwkv7,
)

__all__ = [
    "delta_net",
    "gated_deltanet",
    "gla",
    "mamba2",
    "olmo_hybrid",
    "qwen3_5",
    "retnet",
    "rwkv7",
]
