"""Memory structures: the first of the four choices."""

from miras.memory.base import Fit, Memory, Reader, TokenCache, register
from miras.memory.compressed_slots import CompressedSlots
from miras.memory.features import Features
from miras.memory.gated_mlp import GatedMLP
from miras.memory.kv import KV
from miras.memory.matrix import Matrix
from miras.memory.mlp import MLP
from miras.memory.slots import Slots
from miras.memory.vector import Vector

__all__ = [
    "DEFAULT",
    "KV",
    "MLP",
    "CompressedSlots",
    "Features",
    "Fit",
    "GatedMLP",
    "Matrix",
    "Memory",
    "Reader",
    "Slots",
    "TokenCache",
    "Vector",
    "attention",
    "register",
]

DEFAULT: Memory = Matrix()


def attention(*, window: int | None = None, persistent: int = 0) -> Memory:
    """The memory that is softmax attention; see `KV`."""
    return KV(window=window, persistent=persistent)
