"""The `pallas` backend: the walk over tiles in a kernel, and when there can be one."""

import contextlib
import functools
import logging
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental.pallas import tpu as pltpu

from miras.config import ConfigError
from miras.engine import xla
from miras.kernels import tpu
from miras.kernels.loop import in_kernels
from miras.kernels.plan import Plan, plan
from miras.rule import Rule
from miras.typing import Array

log = logging.getLogger("miras")

_interpreting = False


def run(rule: Rule, *args: Any, chunk: int, **options: Any):
    """As `xla.run`, in kernels.

    Raises:
        ConfigError: where there can be none, with the reason.
    """
    by_tile = functools.partial(xla.run, rule, *args, chunk=chunk, **options)
    found = _choose(rule, by_tile, args[1], chunk)
    if isinstance(found, str):
        raise ConfigError(f'backend="pallas" cannot run this: {found}; use "xla" or "auto".')
    return _in_kernel(by_tile, found)


def run_or_xla(rule: Rule, *args: Any, chunk: int, **options: Any):
    """As `run` where there can be a kernel, else as `xla.run`; the log says which, and why."""
    by_tile = functools.partial(xla.run, rule, *args, chunk=chunk, **options)
    found = _choose(rule, by_tile, args[1], chunk)
    if isinstance(found, str):
        log.info("backend xla for %s, not pallas: %s", rule, found)
        return by_tile()
    log.info("backend pallas for %s: %s", rule, found)
    return _in_kernel(by_tile, found)


def _in_kernel(by_tile: Any, found: Plan):
    return by_tile(
        loop=functools.partial(in_kernels, tpu.KERNELS, layout=found.layout), tile=found.tile
    )


def _choose(rule: Rule, by_tile: Any, q: Array, chunk: int) -> Plan | str:
    """The plan of a kernel, or why there can be none."""
    capacity = _capacity()
    if capacity is None:
        return f"it needs a TPU, and jax computes on {jax.default_backend()} here"
    if q.dtype == "float64" and not _interpreting:
        return "a TPU has no float64"
    return plan(rule, by_tile, chunk, capacity)


def _capacity() -> int | None:
    """Bytes of VMEM; None without a TPU."""
    if _interpreting:
        return 2**27
    return pltpu.get_tpu_info().vmem_capacity_bytes if pltpu.is_tpu_device() else None


@contextlib.contextmanager
def interpreted(**options: Any) -> Iterator[None]:
    """Run kernels without a TPU, in jax's interpreter of them: slow, and strict.

    Memory that nothing was written to reads as NaN.

    Args:
        **options: further fields of `pltpu.InterpretParams`, such as `detect_races=True`.
    """
    global _interpreting
    params = pltpu.InterpretParams(uninitialized_memory="nan", **options)
    with pltpu.force_tpu_interpret_mode(params):
        _interpreting = True
        try:
            yield
        finally:
            _interpreting = False
