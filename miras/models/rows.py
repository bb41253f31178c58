"""Rows of a state: every row of a batch has its own memories, length and reset.

States are immutable, so to keep one is to fork it: nothing is copied before it is written, and what
a call returns shares nothing with what it was given.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from miras.config import require
from miras.engine import KVState
from miras.models.language_model import LanguageModel, ModelState
from miras.typing import Array

_BATCH = 1  # axis of the rows: leaves are [groups, B, ...]


def batch_of(state: ModelState) -> int:
    """B."""
    return jax.tree.leaves(state)[0].shape[_BATCH]


def take(state: ModelState, rows: Sequence[int] | np.ndarray) -> ModelState:
    """The state of some rows, in the order given; a row may stand there several times."""
    index = np.asarray(rows, np.int64)
    batch = batch_of(state)
    legal = index.ndim == 1 and index.size > 0 and index.min() >= 0 and index.max() < batch
    require(bool(legal), f"rows={rows} must be a list of numbers in [0, {batch}).")
    return jax.tree.map(lambda leaf: jnp.take(leaf, index, axis=_BATCH), state)


def fork(state: ModelState, copies: int) -> ModelState:
    """Each row `copies` times, one after the other: to go on in several ways from one past."""
    require(copies >= 1, f"copies={copies} must be at least 1.")
    return take(state, np.repeat(np.arange(batch_of(state)), copies))


def put(state: ModelState, rows: Sequence[int] | np.ndarray, new: ModelState) -> ModelState:
    """The state with some rows replaced by those of another of as many."""
    index = jnp.asarray(rows)
    return jax.tree.map(lambda leaf, own: leaf.at[:, index].set(own), state, new)


def join(states: Sequence[ModelState]) -> ModelState:
    """One batch of the rows of several states, whatever their lengths."""
    require(len(states) >= 1, "join needs at least one state.")
    places = [_places(state) for state in states]
    states = [_with_places(state, max(places)) if max(places) else state for state in states]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=_BATCH), *states)


def reset(model: LanguageModel, state: ModelState, rows: Array) -> ModelState:
    """The state with the rows marked in `rows` [B] bool as they were before any token."""
    start = model.init_state(batch_of(state))
    return where(rows, _with_places(start, _places(state)), state)


def where(rows: Array, new: ModelState, old: ModelState) -> ModelState:
    """The rows of `new` where `rows` [B] holds, else those of `old`."""
    rows = jnp.asarray(rows)

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(rows.reshape(1, -1, *[1] * (a.ndim - 2)), a, b)

    return jax.tree.map(choose, new, old)


def _kept(state: ModelState) -> list[KVState]:
    leaves = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, KVState))
    return [leaf for leaf in leaves if isinstance(leaf, KVState) and leaf.grows]


def _places(state: ModelState) -> int:
    """The places of memories that keep all tokens; 0 where there are none."""
    return max((kept.visible.shape[-1] for kept in _kept(state)), default=0)


def _with_places(state: ModelState, places: int) -> ModelState:
    """The state with so many places in the memories that keep all tokens."""

    def widen(kept: Any) -> Any:
        if not isinstance(kept, KVState) or not kept.grows:
            return kept
        extra = places - kept.visible.shape[-1]

        def pad(x: Array) -> Array:
            return jnp.pad(x, [(0, 0)] * 2 + [(0, extra)] + [(0, 0)] * (x.ndim - 3))

        names = ("k", "v", "visible", "segment")
        wider = {name: pad(getattr(kept, name)) for name in names}
        return dataclasses.replace(kept, **wider, reserved=True)

    return jax.tree.map(widen, state, is_leaf=lambda x: isinstance(x, KVState))
