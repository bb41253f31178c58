"""Loop: a walk over tiles in kernels, forward and backward, for `backends.xla.loop.Loop`."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from miras.array_typing import Array
from miras.backends.pallas.trace.live_state import carried, everywhere
from miras.backends.pallas.trace.operands import Given
from miras.engine.state import State


class Kernels(NamedTuple):
    """What a device has.

    Attributes:
        forward: (step, layout, given, save) -> ((memory, memory before the last tile, y, loss),
            memories before each group of tiles if `save`).
        backward: (step, layout, given but for the memory, saved, cotangents of the first four) ->
            cotangents of constants, memory and streams.
    """

    forward: Callable[..., Any]
    backward: Callable[..., Any]


def in_kernels(
    kernels: Kernels, step: Callable[..., Any], *args: Any, layout: Any
) -> tuple[State, Array, Array]:
    """As `backends.xla.loop.in_order`, in kernels.

    Args:
        kernels: of the device.
        step: `tile_step` of a rule.
        *args: see `given.given`.
        layout: how the kernels go through the tiles; hashable.
    """
    step, (constants, memory, streams, flags) = carried(step, *args)
    out: Any = _run(kernels, step, layout, constants, memory, streams, flags)
    memory, before, y, loss = out
    # The rest of the memory is made anew by every tile: only the last one's is wanted.
    end: Any = jax.tree.map(lambda x: x[-1], (streams, flags))
    others: Any = everywhere(step.whole)(end[1], constants, before, end[0])[0]
    return step.memory.within(memory, others), y, loss


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _run(kernels, step, layout, constants, memory, streams, flags):
    return kernels.forward(step, layout, Given(constants, memory, streams, flags), save=False)[0]


def _run_fwd(kernels, step, layout, constants, memory, streams, flags):
    given = Given(constants, memory, streams, flags)
    out, saved = kernels.forward(step, layout, given, save=True)
    return out, (constants, streams, flags, saved)


def _run_bwd(kernels, step, layout, kept, cotangents):
    constants, streams, flags, saved = kept
    given = Given(constants, None, streams, flags)
    return (*kernels.backward(step, layout, given, saved, cotangents), None)


_run.defvjp(_run_fwd, _run_bwd)
