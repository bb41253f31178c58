"""Memory structures: the first of the four choices."""

from miras.memory.base import Memory, Reader, register
from miras.memory.features import Features
from miras.memory.gated_mlp import GatedMLP
from miras.memory.kv import KV
from miras.memory.matrix import Matrix
from miras.memory.mlp import MLP
from miras.memory.slots import Slots
from miras.memory.vector import Vector

__all__ = [
    "KV",
    "MLP",
    "Features",
    "GatedMLP",
    "Matrix",
    "Memory",
    "Reader",
    "Slots",
    "Vector",
    "register",
]
