"""Columns: a matrix memory's value columns as heads of their own, where none depends on another.

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
    """Whether the rule's memory may be split by columns; no gate is one per column then."""
    parts = (rule.memory, rule.bias, rule.retention, rule.algorithm)
    by_column = any(gate.side == "value" for gate in rule.gates)
    separable = all(part.separable for part in parts)
    return separable and not by_column and not rule.carries(1, 1)


def split_columns(loop: Callable[..., Any], count: int) -> Callable[..., Any]:
    """A loop over tiles (`backends.xla.loop.Loop`) with each head as `count` heads of columns."""

    def split_loop(
        step: Callable[..., Any], constants: Constants, memory: State, *tiles: Any
    ) -> tuple[State, Array, Array]:
        memory, y, loss = loop(step, *split_operands(count, constants, memory, *tiles))
        memory = jax.tree.map(lambda x: _merge(x, 1, count), memory)
        loss = loss.reshape(*loss.shape[:2], -1, count, loss.shape[3])
        return memory, _merge(y, 2, count), jnp.sum(loss, axis=3)

    return split_loop


def split_operands(
    count: int, constants: Constants, memory: State, tiles: Tile, resets: Array | None
) -> tuple[Constants, State, Tile, Array | None]:
    """What a loop over tiles is called with, each head as `count` heads of fewer columns."""

    def split(tree: Any, axis: int) -> Any:
        return jax.tree.map(lambda x: _split(x, axis, count), tree)

    def repeat(tree: Any, axis: int) -> Any:
        return jax.tree.map(lambda x: jnp.repeat(x, count, axis), tree)

    constants = Constants(repeat(constants.fixed, 0), split(constants.segment_start, 0))
    tiles = tiles._replace(
        q=repeat(tiles.q, 2),
        k=repeat(tiles.k, 2),
        k_write=repeat(tiles.k_write, 2),
        gates=repeat(tiles.gates, 2),
        v=split(tiles.v, 2),
    )
    return constants, split(memory, 1), tiles, resets


def _split(x: Array, axis: int, count: int) -> Array:
    """[.., H, .., D] as [.., H * count, .., D / count], heads at an axis."""
    x = x.reshape(*x.shape[:-1], count, x.shape[-1] // count)
    x = jnp.moveaxis(x, -2, axis + 1)
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])


def _merge(x: Array, axis: int, count: int) -> Array:
    """The inverse."""
    x = x.reshape(*x.shape[:axis], -1, count, *x.shape[axis + 1 :])
    x = jnp.moveaxis(x, axis + 1, -2)
    return x.reshape(*x.shape[:-2], -1)
