"""Memory structures: the first of the four choices."""

from miras.memory.base import Memory, Reader, register
from miras.memory.matrix import Matrix
from miras.memory.mlp import MLP
from miras.memory.vector import Vector

__all__ = ["MLP", "Matrix", "Memory", "Reader", "Vector", "register"]
