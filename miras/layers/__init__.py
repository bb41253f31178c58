"""Sequence layers over the engine; no update of their own."""

from miras.layers.config import LayerConfig
from miras.layers.memory_layer import Health, LayerState, MemoryLayer
from miras.layers.norm import RMSNorm, l2_normalise
from miras.layers.swiglu import SwiGLU

__all__ = [
    "Health",
    "LayerConfig",
    "LayerState",
    "MemoryLayer",
    "RMSNorm",
    "SwiGLU",
    "l2_normalise",
]
