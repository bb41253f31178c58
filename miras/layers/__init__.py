"""Sequence layers over the engine; no update of their own."""

from miras.layers.config import AttentionConfig, LayerConfig
from miras.layers.fast_weights import FastWeights, Health, MemoryConfig
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
