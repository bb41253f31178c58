"""Names of the arrays that a block may keep for its backward pass, not to recompute them.

Policies of `jax.checkpoint` select arrays by these names, see `miras.models.remat`; elsewhere a
name has no effect.
"""

from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

from miras.array_typing import Array

OUTPUT = "memory_output"  # of a memory or an attention
STATE = "memory_state"  # of a memory, between tiles, from which its backward pass starts


def output(y: Array) -> Array:
    """y, named as the output of a memory or an attention."""
    return checkpoint_name(y, OUTPUT)


def states(tree: Any) -> Any:
    """Memories between tiles, named so."""
    return jax.tree.map(lambda x: checkpoint_name(x, STATE), tree)
