"""State: all that a model carries from token to token."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from miras.attention.cache import KVState, check_room, widened
from miras.config import require

BATCH = 1  # axis of the rows: leaves are [groups, B, ...]
_BY_PLACE = ("k", "v", "visible", "segment")  # of a KVState: [groups, B, L, ...]


class ModelState(NamedTuple):
    """All that a model carries from token to token; a pytree whose size never grows.

    But for kv memories without a window, which keep every token.

    Attributes:
        layers: for each letter of the pattern the state of its layers, leaves [groups, B, ...]:
            memories, convolution tails, attention windows, positions.
    """

    layers: tuple[Any, ...]


def batch_of(state: ModelState) -> int:
    """B."""
    return jax.tree.leaves(state)[0].shape[BATCH]


def growing(state: ModelState) -> list[KVState]:
    """The memories in it that keep all tokens."""
    return [x for x in jax.tree.leaves(state, is_leaf=_grows) if _grows(x)]


def map_growing(change: Callable[[KVState], KVState], state: ModelState) -> ModelState:
    """The state with the memories that keep all tokens changed."""
    return jax.tree.map(lambda x: change(x) if _grows(x) else x, state, is_leaf=_grows)


def places(state: ModelState) -> int:
    """The places of memories that keep all tokens; 0 where there are none."""
    return max((kept.visible.shape[-1] for kept in growing(state)), default=0)


def with_places(state: ModelState, most: int) -> ModelState:
    """The state with so many places in the memories that keep all tokens."""
    return map_growing(lambda kept: widened(kept, most), state)


def reserved(state: ModelState, mark: bool) -> ModelState:
    """With room in the memories that keep all tokens, or without: a static field."""
    return map_growing(lambda kept: dataclasses.replace(kept, reserved=mark), state)


def form(state: ModelState) -> tuple[Any, ...]:
    """What all states of a model have in common: all but rows and places."""
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((x.shape[0], *x.shape[BATCH + 1 :]), x.dtype), state
    )

    def placeless(kept: Any) -> Any:
        own = {name: getattr(kept, name) for name in _BY_PLACE}
        none = {
            name: jax.ShapeDtypeStruct((x.shape[0], 0, *x.shape[2:]), x.dtype)
            for name, x in own.items()
        }
        return dataclasses.replace(kept, **none, reserved=False)

    leaves, tree = jax.tree.flatten(map_growing(placeless, shapes))
    return tree, tuple(leaves)


def check_fits(state: ModelState, shape: tuple[int, ...]) -> None:
    """Raise `ConfigError` where a state cannot take tokens [B, T] of this shape."""
    held = batch_of(state)
    require(
        held == shape[0],
        f"tokens have {shape[0]} rows and the state {held}: give as many, or take rows of the "
        "state by miras.models.take.",
    )
    for kept in growing(state):
        check_room(kept, shape[1])


def _grows(x: Any) -> bool:
    return isinstance(x, KVState) and x.grows
