"""Columns: a matrix memory's value columns as heads of their own, where none looks at another.

A column of W is written by its own error, so that a head of [dk, dv] may be computed as several of
[dk, dv / n]: each is small enough for a kernel, and there are more of them at once.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from miras.array_typing import Array
from miras.engine.state import State
from miras.engine.step import Tile
from miras.engine.tile import Constants
from miras.rule.rule import Rule


def independent(rule: Rule) -> bool:
    """Whether the rule's memory may be taken apart by columns; no gate is one per column then."""
    parts = (rule.memory, rule.bias, rule.retention, rule.algorithm)
    by_column = any(gate.side == "value" for gate in rule.gates)
    return all(part.separable for part in parts) and not by_column


def in_columns(loop: Callable[..., Any], count: int) -> Callable[..., Any]:
    """A loop over tiles (`xla.loop.Loop`) with each head as `count` heads of fewer columns."""

    def run(
        step: Callable[..., Any],
        constants: Constants,
        memory: State,
        tiles: Tile,
        resets: Array | None,
    ) -> tuple[State, Array, Array]:
        def apart(tree: Any, axis: int) -> Any:
            return jax.tree.map(lambda x: _apart(x, axis, count), tree)

        def again(tree: Any, axis: int) -> Any:
            return jax.tree.map(lambda x: jnp.repeat(x, count, axis), tree)

        constants = Constants(again(constants.fixed, 0), apart(constants.origin, 0))
        tiles = tiles._replace(
            q=again(tiles.q, 2),
            k=again(tiles.k, 2),
            k_write=again(tiles.k_write, 2),
            gates=again(tiles.gates, 2),
            v=apart(tiles.v, 2),
        )
        memory, y, loss = loop(step, constants, apart(memory, 1), tiles, resets)
        memory = jax.tree.map(lambda x: _together(x, 1, count), memory)
        loss = loss.reshape(*loss.shape[:2], -1, count, loss.shape[3])
        return memory, _together(y, 2, count), jnp.sum(loss, axis=3)

    return run


def _apart(x: Array, axis: int, count: int) -> Array:
    """[.., H, .., D] as [.., H * count, .., D / count], heads at an axis."""
    x = x.reshape(*x.shape[:-1], count, x.shape[-1] // count)
    x = jnp.moveaxis(x, -2, axis + 1)
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])


def _together(x: Array, axis: int, count: int) -> Array:
    """The inverse."""
    x = x.reshape(*x.shape[:axis], -1, count, *x.shape[axis + 1 :])
    x = jnp.moveaxis(x, axis + 1, -2)
    return x.reshape(*x.shape[:-2], -1)
