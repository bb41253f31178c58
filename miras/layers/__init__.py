"""Sequence layers around `miras.scan`, as Flax NNX modules."""

from typing import TYPE_CHECKING

from miras.runtime import lazy

if TYPE_CHECKING:
    from miras.layers.config import AttentionConfig, LayerConfig, MemoryConfig
    from miras.layers.fast_weights import FastWeights, Health
    from miras.layers.memory_layer import LayerState, MemoryLayer
    from miras.layers.norm import RMSNorm, l2_normalise
    from miras.layers.swiglu import SwiGLU

__all__ = [
    "AttentionConfig",
    "FastWeights",
    "Health",
    "LayerConfig",
    "LayerState",
    "MemoryConfig",
    "MemoryLayer",
    "RMSNorm",
    "SwiGLU",
    "l2_normalise",
]

lazy.package(
    __name__,
    {
        ".config": ("AttentionConfig", "LayerConfig", "MemoryConfig"),
        ".fast_weights": ("FastWeights", "Health"),
        ".memory_layer": ("LayerState", "MemoryLayer"),
        ".norm": ("RMSNorm", "l2_normalise"),
        ".swiglu": ("SwiGLU",),
    },
)
