"""Loss spikes: updates whose gradient is far larger than those before it are skipped.

An update is a spike if the norm of its gradient, before clipping, is over

    K * median(norms of the last 128 updates),

once 16 norms are known. A skipped update changes neither the parameters nor the optimiser's state,
its count of updates for the learning rate included, as if its batches had not been read. Its norm
enters the window too, so that a run whose gradients have grown for good goes on: after 64 updates
at the latest the median is of the new size. OLMo-core's `SkipStepOptimizer`
(https://github.com/allenai/OLMo-core) has a window of the same length, and compares with a multiple
of the standard deviation, which a single spike raises; a median does not move.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from miras.array_typing import Array

WINDOW = 128
FEWEST = 16


class NormWindow(NamedTuple):
    """The norms of the last updates.

    Attributes:
        norms: the last `WINDOW` of them, float32 [WINDOW], in a ring; 0 before they are known.
        seen: updates so far, int32.
        skipped: how many of them were spikes, int32.
        median: of the norms before the last update, float32; 0 if there were none.
        spike: whether the last update was one.
    """

    norms: Array
    seen: Array
    skipped: Array
    median: Array
    spike: Array


class WatchedState(NamedTuple):
    """The state of an optimiser whose gradient norms are watched."""

    window: NormWindow
    inner: Any


def start() -> NormWindow:
    """The window before the first update."""
    none = jnp.zeros((), jnp.int32)
    return NormWindow(jnp.zeros(WINDOW), none, none, jnp.zeros(()), jnp.zeros((), bool))


def observe(window: NormWindow, norm: Array, times: float) -> NormWindow:
    """The window after an update.

    Args:
        window: before it.
        norm: of its gradient, a scalar.
        times: K, > 1.
    """
    known = jnp.minimum(window.seen, WINDOW)
    ordered = jnp.sort(jnp.where(jnp.arange(WINDOW) < known, window.norms, jnp.inf))
    middle = ordered[jnp.maximum(known - 1, 0) // 2], ordered[known // 2]
    median = jnp.where(known > 0, (middle[0] + middle[1]) / 2, 0.0)
    spike = (known >= FEWEST) & (norm > times * median)
    return NormWindow(
        norms=window.norms.at[window.seen % WINDOW].set(norm),
        seen=window.seen + 1,
        skipped=window.skipped + spike,
        median=median,
        spike=spike,
    )


def watched(
    inner: optax.GradientTransformation, times: float | None
) -> optax.GradientTransformation:
    """An optimiser whose state also has the `NormWindow`; the optimiser itself if `times` is None.

    The window only says what is a spike; `step` leaves out the update.

    Args:
        inner: of `optimizer.make_optimizer`; its state has a `gradient_norm`.
        times: K, > 1.
    """
    if times is None:
        return inner

    def init(params: Any) -> WatchedState:
        return WatchedState(start(), inner.init(params))

    def update(gradient: Any, state: WatchedState, params: Any = None):
        updates, after = inner.update(gradient, state.inner, params)
        norm = optax.tree.get(after, "gradient_norm")
        return updates, WatchedState(observe(state.window, norm, times), after)

    return optax.GradientTransformation(init, update)  # pyright: ignore


def window_of(state: optax.OptState) -> NormWindow | None:
    """The window of an optimiser's state; None if spikes are not skipped."""
    return state.window if isinstance(state, WatchedState) else None


def with_window(state: optax.OptState, window: NormWindow | None, where: Array) -> optax.OptState:
    """The state with another window if `where` is true; all else is as it is."""
    if not isinstance(state, WatchedState):
        return state
    return state._replace(
        window=jax.tree.map(lambda new, old: jnp.where(where, new, old), window, state.window)
    )


def skipped_warning(step: int, norm: float, window: NormWindow | None) -> str | None:
    """What the run logs of a skipped update; None of another.

    Args:
        step: the number of the update.
        norm: of its gradient.
        window: after it, on the host.
    """
    if window is None or not window.spike:
        return None
    return (
        f"warning: the update of step {step} was skipped: its gradient norm {norm:.3g} is "
        f"{norm / max(window.median, 1e-30):.1f} times the running median {window.median:.3g} "
        f"(train.skip_spikes); {window.skipped} skipped so far."
    )
