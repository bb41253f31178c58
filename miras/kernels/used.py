"""Used: which inputs a program looks at, so that a kernel need not hold the others."""

from typing import Any

import jax
import jax.numpy as jnp

from miras.kernels.given import Given
from miras.kernels.padded import padded
from miras.kernels.program import Program
from miras.typing import Array


class Used:
    """The leaves of a tree that a program looks at: the others need no registers.

    Args:
        program: whose inputs they are.
        tree: of them, or of their shapes.
        first: the first one's place among the inputs.
    """

    def __init__(self, program: Program, tree: Any, first: int):
        self.leaves, self.tree = jax.tree.flatten(tree)
        jaxpr = program.jaxpr
        looked_at = {id(atom) for eqn in jaxpr.eqns for atom in eqn.invars}
        looked_at |= {id(atom) for atom in jaxpr.outvars}
        places = range(first, first + len(self.leaves))
        self.here = [id(jaxpr.invars[i]) in looked_at for i in places]
        self.end = first + len(self.leaves)

    def kept(self, tree: Any) -> list[Any]:
        """The leaves that it looks at."""
        return [leaf for leaf, here in zip(jax.tree.leaves(tree), self.here) if here]

    def others(self, tree: Any) -> list[Any]:
        """The leaves that it does not look at."""
        return [leaf for leaf, here in zip(jax.tree.leaves(tree), self.here) if not here]

    def joined(self, kept: list[Any], others: list[Any]) -> Any:
        """The tree of both."""
        kept, others = iter(kept), iter(others)  # pyright: ignore
        return jax.tree.unflatten(self.tree, [next(kept if here else others) for here in self.here])  # pyright: ignore

    def nothing(self, lead: int = 0) -> list[Array]:
        """Zeros in place of the others, padded."""
        shapes = [(*x.shape[:lead], *padded(x.shape[lead:])) for x in self.others(self.leaves)]
        return [jnp.zeros(s, x.dtype) for s, x in zip(shapes, self.others(self.leaves))]


def used_of(program: Program, one: Given) -> tuple[Used, Used]:
    """Of constants and of memory."""
    constants = Used(program, one.constants, len(jax.tree.leaves(one.flags)))
    return constants, Used(program, one.memory, constants.end)
