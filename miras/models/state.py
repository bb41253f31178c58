"""The recurrent state of a model: memories, convolution inputs, attention caches, positions."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from miras.attention.cache import KVState, check_room, widened
from miras.config import require

BATCH = 1  # axis of the batch: leaves are [groups, B, ...]
_PER_TOKEN = ("k", "v", "visible", "segment")  # of a KVState: [groups, B, L, ...]


class ModelState(NamedTuple):
    """The recurrent state of a model, a pytree of constant size.

    Only kv memories without a window grow: they keep every token.

    Attributes:
        layers: for each letter of the pattern, the state of its layers, leaves [groups, B, ...]:
            memories, last inputs of convolutions, attention caches, positions.
    """

    layers: tuple[Any, ...]


class BlockState(NamedTuple):
    """The state of a block whose channel mixer has one, too; that of others is the mixer's alone.

    Attributes:
        mixer: of the token mixer.
        channel: of the channel mixer.
    """

    mixer: Any
    channel: Any


def mixer_state(block: Any) -> Any:
    """The state of the token mixer in that of a block."""
    return block.mixer if isinstance(block, BlockState) else block


def batch_of(state: ModelState) -> int:
    """The number of rows, B."""
    return jax.tree.leaves(state)[0].shape[BATCH]


def growing_caches(state: ModelState) -> list[KVState]:
    """The kv memories in a state that keep all tokens."""
    return [x for x in jax.tree.leaves(state, is_leaf=_grows) if _grows(x)]


def map_growing_caches(change: Callable[[KVState], KVState], state: ModelState) -> ModelState:
    """Apply a function to the kv memories that keep all tokens."""
    return jax.tree.map(lambda x: change(x) if _grows(x) else x, state, is_leaf=_grows)


def cache_length(state: ModelState) -> int:
    """Tokens that the growing caches have room for; 0 if there are none."""
    return max((kept.visible.shape[-1] for kept in growing_caches(state)), default=0)


def with_cache_length(state: ModelState, most: int) -> ModelState:
    """The state with room for `most` tokens in its growing caches."""
    return map_growing_caches(lambda kept: widened(kept, most), state)


def reserved(state: ModelState, mark: bool) -> ModelState:
    """Set the static field `reserved` of the growing caches."""
    return map_growing_caches(lambda kept: dataclasses.replace(kept, reserved=mark), state)


def state_spec(state: ModelState) -> tuple[Any, ...]:
    """The structure, shapes and dtypes of a state, except for its rows and cache length."""
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((x.shape[0], *x.shape[BATCH + 1 :]), x.dtype), state
    )

    def without_tokens(kept: Any) -> Any:
        own = {name: getattr(kept, name) for name in _PER_TOKEN}
        none = {
            name: jax.ShapeDtypeStruct((x.shape[0], 0, *x.shape[2:]), x.dtype)
            for name, x in own.items()
        }
        return dataclasses.replace(kept, **none, reserved=False)

    leaves, tree = jax.tree.flatten(map_growing_caches(without_tokens, shapes))
    return tree, tuple(leaves)


def check_fits(state: ModelState, shape: tuple[int, ...]) -> None:
    """Raise `ConfigError` if a state does not fit tokens [B, T] of this shape."""
    rows = batch_of(state)
    require(
        rows == shape[0],
        f"tokens have {shape[0]} rows and the state {rows}: give equal numbers, or select rows of "
        "the state with miras.models.take.",
    )
    for kept in growing_caches(state):
        check_room(kept, shape[1])


def _grows(x: Any) -> bool:
    return isinstance(x, KVState) and x.grows
