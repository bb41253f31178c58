"""Interpreter: kernels without their device, slow and strict."""

import contextlib
from collections.abc import Iterator
from typing import Any

from jax.experimental.pallas import tpu as pltpu

_on = False


def interpreting() -> bool:
    """Whether kernels are run by jax's interpreter of them."""
    return _on


@contextlib.contextmanager
def interpreted(**options: Any) -> Iterator[None]:
    """Run kernels without a TPU, in jax's interpreter of them: slow, and strict.

    Memory that nothing was written to reads as NaN, and products are as exact as their operands.

    Args:
        **options: further fields of `pltpu.InterpretParams`, such as `detect_races=True`.
    """
    global _on
    params = pltpu.InterpretParams(uninitialized_memory="nan", **options)
    with pltpu.force_tpu_interpret_mode(params):
        _on = True
        try:
            yield
        finally:
            _on = False
