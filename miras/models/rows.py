"""Rows of a state: every row of a batch has its own memories, length and reset.

States are immutable, so to keep one is to fork it: nothing is copied before it is written, and what
a call returns shares nothing with what it was given.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from miras.array_typing import Array
from miras.config import require
from miras.models.language_model import LanguageModel, check_state
from miras.models.state import BATCH, ModelState, batch_of, form, growing, places, with_places


def take(state: ModelState, rows: Sequence[int] | np.ndarray) -> ModelState:
    """The state of some rows, in the order given; a row may stand there several times.

    Raises:
        ConfigError: for rows that there are not.
    """
    index = _index(rows, batch_of(state))
    return jax.tree.map(lambda leaf: jnp.take(leaf, index, axis=BATCH), state)


def fork(state: ModelState, copies: int) -> ModelState:
    """Each row `copies` times, one after the other: to go on in several ways from one past."""
    require(copies >= 1, f"copies={copies} must be at least 1.")
    return take(state, np.repeat(np.arange(batch_of(state)), copies))


def put(state: ModelState, rows: Sequence[int] | np.ndarray, new: ModelState) -> ModelState:
    """The state with some rows replaced by those of another, whatever their lengths.

    Raises:
        ConfigError: for rows that there are not, that are named twice, or of which the other state
            has not as many; and for states of two models.
    """
    index, count = _index(rows, batch_of(state)), batch_of(new)
    require(
        len(index) == len(set(index.tolist())) == count,
        f"rows={rows} must name {count} different rows, as many as the new state has.",
    )
    state, new = _alike([state, new])
    return jax.tree.map(lambda leaf, own: leaf.at[:, index].set(own), state, new)


def join(states: Sequence[ModelState]) -> ModelState:
    """One batch of the rows of several states of one model, whatever their lengths."""
    require(len(states) >= 1, "join needs at least one state.")
    states = _alike(states)
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=BATCH), *states)


def reset(model: LanguageModel, state: ModelState, rows: Array) -> ModelState:
    """The state with the rows marked in `rows` [B] bool as they were before any token.

    Raises:
        ConfigError: for other marks, or a state that is not the model's.
    """
    check_state(model, state)
    start, state = _alike([model.init_state(batch_of(state)), state])
    return where(rows, start, state)


def where(rows: Array, new: ModelState, old: ModelState, name: str = "rows") -> ModelState:
    """The rows of `new` where `rows` [B] bool holds, else those of `old`; errors say `name`."""
    rows, batch = jnp.asarray(rows), batch_of(old)
    require(
        rows.shape == (batch,) and rows.dtype == bool,
        f"{name} has shape {rows.shape} and dtype {rows.dtype}: it must be bool ({batch},), a mark "
        "for each row.",
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


def _alike(states: Sequence[ModelState]) -> list[ModelState]:
    """States of one model with as many places, so that their rows go together."""
    forms = {form(state) for state in states}
    require(len(forms) == 1, "the states are of different models: give those of one.")
    if not any(map(growing, states)):
        return list(states)
    most = max(map(places, states))
    return [with_places(state, most) for state in states]
