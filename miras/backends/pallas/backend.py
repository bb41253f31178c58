"""The `pallas` backend: the walk over tiles in a kernel, and when there can be one."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.experimental.pallas import tpu as pltpu

from miras.array_typing import Array
from miras.backends.pallas.gpu.columns import in_columns
from miras.backends.pallas.interpreter import interpreting
from miras.backends.pallas.log import say
from miras.backends.pallas.loop import in_kernels
from miras.backends.pallas.target import CAPABILITY, capability, platform
from miras.backends.pallas.tpu import kernels as tpu
from miras.backends.pallas.tpu.plan import plan
from miras.backends.xla import scan as xla
from miras.config import ConfigError
from miras.rule.rule import Rule


class Chosen(NamedTuple):
    """A kernel for a call.

    Attributes:
        tile: tokens of a tile.
        loop: how tiles are gone through, see `engine.xla.Loop`.
        plan: what was planned, for the log.
        chunk: tokens of a chunk, which for exact rules are no part of the model.
    """

    tile: int
    loop: Callable[..., Any]
    plan: Any
    chunk: int


def run(rule: Rule, *args: Any, chunk: int, **options: Any):
    """As `xla.run`, in kernels.

    Raises:
        ConfigError: where there can be none, with the reason.
    """
    by_tile = functools.partial(xla.run, rule, *args, chunk=chunk, **options)
    found = _choose(rule, by_tile, args[3], chunk, options)
    if isinstance(found, str):
        raise ConfigError(f'backend="pallas" cannot run this: {found}; use "xla" or "auto".')
    return by_tile(loop=found.loop, tile=found.tile, chunk=found.chunk)


def run_or_xla(rule: Rule, *args: Any, chunk: int, **options: Any):
    """As `run` where there can be a kernel, else as `xla.run`; the log says which, and why."""
    by_tile = functools.partial(xla.run, rule, *args, chunk=chunk, **options)
    found = _choose(rule, by_tile, args[3], chunk, options)
    if isinstance(found, str):
        say(f"backend xla for {rule}, not pallas: {found}")
        return by_tile()
    say(f"backend pallas for {rule}: {found.plan}")
    return by_tile(loop=found.loop, tile=found.tile, chunk=found.chunk)


def _choose(
    rule: Rule, by_tile: Callable[..., Any], v: Array, chunk: int, options: dict[str, Any]
) -> Chosen | str:
    """A kernel, or why there can be none."""
    device = interpreting() or platform()
    if device not in ("tpu", "gpu"):
        return f"it needs a TPU or a GPU, and jax computes on {device} here"
    if v.dtype == "float64" and not interpreting():
        return f"no {device.upper()} kernel computes in float64"
    save_every = options.get("save_every")
    if device == "tpu":
        return _on_tpu(rule, by_tile, chunk, save_every)
    if save_every is not None:
        return f"GPU kernels keep the memory of every tile, and save_every={save_every!r}"
    return _on_gpu(rule, by_tile, chunk, v.shape[-1], exact=options["how"].exact)


def _on_tpu(rule: Rule, by_tile: Any, chunk: int, save_every: Any) -> Chosen | str:
    vmem = 2**27 if interpreting() else pltpu.get_tpu_info().vmem_capacity_bytes
    found = plan(rule, by_tile, chunk, vmem, save_every)
    if isinstance(found, str):
        return found
    loop = functools.partial(in_kernels, tpu.KERNELS, layout=found.layout)
    return Chosen(found.tile, loop, found, chunk)


def _on_gpu(rule: Rule, by_tile: Any, chunk: int, width: int, *, exact: bool) -> Chosen | str:
    try:
        from miras.backends.pallas.gpu import kernels as gpu  # Triton may be gone from jax
        from miras.backends.pallas.gpu import plan as gpu_plan
    except ImportError as missing:
        return f"jax {jax.__version__} lacks what GPU kernels are made of ({missing})"
    has = None if interpreting() else capability()
    if has is not None and has < CAPABILITY:
        return f"Triton needs a GPU of compute capability {CAPABILITY}, and this one has {has}"
    if exact:  # then a tile that begins a chunk has a snapshot less to hold
        chunk = gpu_plan.tile_of(chunk)
        by_tile = functools.partial(by_tile, chunk=chunk)
    found = gpu_plan.plan(rule, by_tile, chunk, width)
    if isinstance(found, str):
        return found
    loop = functools.partial(in_kernels, gpu.KERNELS, layout=found.layout)
    return Chosen(found.tile, in_columns(loop, found.columns), found, chunk)
