"""A device's kernels as a `backends.xla.loop.Loop`, with a derivative of their own."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from miras.array_typing import Array
from miras.backends.pallas.dead_outputs import with_saved
from miras.backends.pallas.trace.live_step import live_step, over_rows_and_heads
from miras.backends.pallas.trace.operands import ScanOperands, scan_operands
from miras.engine.saved import states
from miras.engine.state import State


class Kernels(NamedTuple):
    """The kernels of a device.

    Attributes:
        forward: (step, layout, operands, save) -> ((memory, memory before the last tile, y, loss),
            memories before each group of tiles if `save`).
        backward: (step, layout, operands without the memory, saved, cotangents of the first four)
            -> cotangents of constants, memory and streams.
    """

    forward: Callable[..., Any]
    backward: Callable[..., Any]


def loop_in_kernels(
    kernels: Kernels,
    step: Callable[..., Any],
    *args: Any,
    layout: Any,
    joined: Callable[..., Any] | None = None,
) -> tuple[State, Array, Array]:
    """As `backends.xla.loop.scan_tiles`, in kernels.

    Args:
        kernels: of the device.
        step: `tile_step` of a rule.
        *args: of `operands.scan_operands`.
        layout: how the kernels go through the tiles; hashable.
        joined: see `LiveStep`.
    """
    step, (constants, memory, streams, flags) = live_step(step, scan_operands(*args), joined)
    out: Any = _scan(kernels, step, layout, constants, memory, streams, flags)
    memory, before, y, loss = out
    # Every tile computes the memory's dead leaves anew: the last tile's are those at the end.
    last: Any = jax.tree.map(lambda x: x[-1], (streams, flags))
    full: Any = over_rows_and_heads(step.full)(last[1], constants, before, last[0])[0]
    return step.memory.fill(memory, full), y, loss


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _scan(kernels, step, layout, constants, memory, streams, flags):
    operands = ScanOperands(constants, memory, streams, flags)
    return kernels.forward(step, layout, operands, save=False)[0]


def _scan_forward(kernels, step, layout, constants, memory, streams, flags):
    operands = ScanOperands(constants, memory, streams, flags)
    forward = functools.partial(kernels.forward, step, layout)
    out, saved = with_saved(forward, operands)
    return out, (constants, streams, flags, states(saved))


def _scan_backward(kernels, step, layout, residuals, cotangents):
    constants, streams, flags, saved = residuals
    operands = ScanOperands(constants, None, streams, flags)
    return (*kernels.backward(step, layout, operands, saved, cotangents), None)


_scan.defvjp(_scan_forward, _scan_backward)
