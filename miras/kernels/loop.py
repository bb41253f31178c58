"""Loop: a walk over tiles in kernels, forward and backward, for `engine.xla.Loop`."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from miras.engine.chunk import Fast
from miras.kernels.given import Given, given
from miras.typing import Array


class Kernels(NamedTuple):
    """What a device has.

    Attributes:
        run: (step, layout, given) -> (memory, y, loss).
        forward: the same, and the memories that it has saved.
        backward: (step, layout, constants, streams, flags, saved, cotangents of the first) ->
            cotangents of constants, memory and streams.
    """

    run: Callable[..., Any]
    forward: Callable[..., Any]
    backward: Callable[..., Any]


def in_kernels(
    kernels: Kernels, step: Callable[..., Any], *args: Any, layout: Any
) -> tuple[Fast, Array, Array]:
    """As `engine.xla.in_order`, in kernels.

    Args:
        kernels: of the device.
        step: `tile_step` of a rule.
        *args: see `given`.
        layout: how the kernels go through the tiles; hashable.
    """
    return _run(kernels, step, layout, *given(*args))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _run(kernels, step, layout, constants, memory, streams, flags):
    return kernels.run(step, layout, Given(constants, memory, streams, flags))


def _run_fwd(kernels, step, layout, constants, memory, streams, flags):
    out, saved = kernels.forward(step, layout, Given(constants, memory, streams, flags))
    return out, (constants, streams, flags, saved)


def _run_bwd(kernels, step, layout, kept, cotangents):
    return (*kernels.backward(step, layout, *kept, cotangents), None)


_run.defvjp(_run_fwd, _run_bwd)
