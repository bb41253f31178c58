"""Rows of a state: select, copy, replace, join and reset the rows of a batch.

States are immutable: a state that is kept stays valid, whatever is computed from it.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from miras.array_typing import Array, RowMask, typed
from miras.config import require
from miras.models.language_model import LanguageModel, check_state
from miras.models.state import (
    BATCH,
    ModelState,
    batch_of,
    cache_length,
    growing_caches,
    state_spec,
    with_cache_length,
)


def take(state: ModelState, rows: Sequence[int] | np.ndarray) -> ModelState:
    """Select rows, in the order given; a row may be selected several times.

    Raises:
        ConfigError: for rows out of range.
    """
    index = _index(rows, batch_of(state))
    return jax.tree.map(lambda leaf: jnp.take(leaf, index, axis=BATCH), state)


def fork(state: ModelState, copies: int) -> ModelState:
    """Repeat each row `copies` times, e.g. to sample several continuations of a prompt."""
    require(copies >= 1, f"copies={copies} must be at least 1.")
    return take(state, np.repeat(np.arange(batch_of(state)), copies))


def put(state: ModelState, rows: Sequence[int] | np.ndarray, new: ModelState) -> ModelState:
    """Replace some rows by the rows of another state; their lengths may differ.

    Raises:
        ConfigError: for rows out of range or given twice, a wrong number of rows, or states of
            different models.
    """
    index, count = _index(rows, batch_of(state)), batch_of(new)
    require(
        len(index) == len(set(index.tolist())) == count,
        f"rows={rows} must name {count} different rows, one for each row of the new state.",
    )
    state, new = _same_length([state, new])
    return jax.tree.map(lambda leaf, own: leaf.at[:, index].set(own), state, new)


def join(states: Sequence[ModelState]) -> ModelState:
    """Concatenate the rows of several states of one model; their lengths may differ."""
    require(len(states) >= 1, "join needs at least one state.")
    states = _same_length(states)
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=BATCH), *states)


@typed
def reset(model: LanguageModel, state: ModelState, rows: RowMask) -> ModelState:
    """Set the rows marked in `rows` [B] bool to the initial state.

    Raises:
        ConfigError: for a mask of another shape or dtype, or a state of another model.
    """
    check_state(model, state)
    start, state = _same_length([model.init_state(batch_of(state)), state])
    return where(rows, start, state)


def where(rows: Array, new: ModelState, old: ModelState, name: str = "rows") -> ModelState:
    """The rows of `new` where `rows` [B] bool is True, otherwise of `old`; errors use `name`."""
    rows, batch = jnp.asarray(rows), batch_of(old)
    require(
        rows.shape == (batch,) and rows.dtype == bool,
        f"{name} has shape {rows.shape} and dtype {rows.dtype}: it must be bool ({batch},), one "
        "value per row.",
    )

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(rows.reshape(1, -1, *[1] * (a.ndim - 2)), a, b)

    return jax.tree.map(choose, new, old)


def _index(rows: Sequence[int] | np.ndarray, batch: int) -> np.ndarray:
    index = np.asarray(rows)
    whole = index.ndim == 1 and index.size > 0 and np.issubdtype(index.dtype, np.integer)
    require(
        bool(whole and index.min() >= 0 and index.max() < batch),
        f"rows={rows} must be a list of numbers in [0, {batch}).",
    )
    return index


def _same_length(states: Sequence[ModelState]) -> list[ModelState]:
    """States of one model with equal cache lengths, so that their rows can be combined."""
    forms = {state_spec(state) for state in states}
    require(len(forms) == 1, "the states are of different models: give states of one model.")
    if not any(map(growing_caches, states)):
        return list(states)
    most = max(map(cache_length, states))
    return [with_cache_length(state, most) for state in states]
