"""Values and gradients of a function, to compare one implementation with another."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def value_and_gradients(run: Callable[[Any], Any], arrays: Any) -> tuple[Any, Any]:
    """What a function returns, and the gradients of a scalar of all of it by all its arrays.

    The scalar is a sum of sines. Each leaf is shifted by its place, so that equal leaves differ.

    Args:
        run: a function of one tree of arrays that returns a tree of arrays of any floating dtypes.
        arrays: its argument.

    Returns:
        `run(arrays)`, and gradients shaped as `arrays`.
    """

    def objective(arrays: Any) -> tuple[Any, Any]:
        found = run(arrays)
        leaves = jax.tree.leaves(found)
        wide = jnp.result_type(*leaves)
        return sum(jnp.sum(jnp.sin(x.astype(wide) + i)) for i, x in enumerate(leaves)), found

    (_, found), gradients = jax.value_and_grad(objective, has_aux=True)(arrays)
    return found, gradients
