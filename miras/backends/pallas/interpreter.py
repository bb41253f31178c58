"""Interpreter: kernels without their device, slow and strict."""

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import jax
from jax.experimental.pallas import tpu as pltpu

Device = Literal["tpu", "gpu"]

_device = jax.make_user_context(None)  # part of the key of jax's caches


def interpreting() -> Device | None:
    """The device whose kernels are run by jax's interpreter of them."""
    return _device.value


@contextlib.contextmanager
def interpreted(device: Device = "tpu", **options: Any) -> Iterator[None]:
    """Run a device's kernels without it, in jax's interpreter of them: slow, and strict for TPUs.

    Memory of a TPU that nothing was written to reads as NaN; products are as exact as their
    operands.

    Args:
        device: "tpu" or "gpu".
        **options: for a TPU further fields of `pltpu.InterpretParams`, as `detect_races=True`.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_device(device))
        if device == "tpu":
            params = pltpu.InterpretParams(uninitialized_memory="nan", **options)
            stack.enter_context(pltpu.force_tpu_interpret_mode(params))
        yield
