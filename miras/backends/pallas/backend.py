"""The Pallas backend: the loop over tiles in a TPU or GPU kernel, and when there can be one."""

import functools
from typing import Any, NamedTuple

import jax
from jax.experimental.pallas import tpu as pltpu

from miras.backends.base import (
    Alignment,
    Backend,
    ScanInputs,
    ScanResult,
    Supports,
    Unsupported,
)
from miras.backends.pallas.interpreter import interpreting
from miras.backends.pallas.loop import loop_in_kernels
from miras.backends.pallas.target import CAPABILITY, capability, platform
from miras.backends.pallas.tpu import kernels as tpu
from miras.backends.pallas.tpu.plan import LIMITS, TpuLimits, plan_tpu_kernel
from miras.backends.pallas.trace.live_step import joined
from miras.backends.xla.backend import Tiling, run_tiles
from miras.backends.xla.tiling import layout_of, operand_shapes
from miras.rule.options import ScanOptions
from miras.rule.rule import Rule


class KernelPlan(NamedTuple):
    """A kernel for a call.

    Attributes:
        tiling: tokens of a tile, and the loop over tiles in the kernel.
        chunk: tokens of a chunk, which for exact rules are a tile size only.
        planned: how the kernel is laid out, for the log.
    """

    tiling: Tiling
    chunk: int
    planned: Any

    def __str__(self) -> str:
        return str(self.planned)


class Pallas(Backend):
    """The chunk step traced into a Mosaic kernel on TPUs, into a Triton kernel on GPUs.

    Args:
        limits: what plans are chosen by, `TpuLimits` on a TPU and `RegisterBudget` on a GPU; None
            for those of the device.
    """

    @property
    def supports(self) -> Supports:
        """GPU kernels save the state of every tile, whatever `save_every` says."""
        on_gpu = (interpreting() or platform()) == "gpu"
        return Supports(False, forward_mode=False, save_every=not on_gpu)

    def __init__(self, limits: Any = None):
        self.limits = limits

    def plan(
        self, rule: Rule, inputs: ScanInputs, options: ScanOptions, alignment: Alignment
    ) -> KernelPlan | Unsupported:
        """The kernel for the device that the call is compiled for, or interpreted as."""
        device = interpreting() or platform()
        if device not in ("tpu", "gpu"):
            return Unsupported(f"it needs a TPU or a GPU, and jax computes on {device} here")
        if inputs.v.dtype == "float64" and not interpreting():
            return Unsupported(f"no {device.upper()} kernel computes in float64")
        if layout_of(rule, inputs, options, alignment).kind == "one_by_one":
            return KernelPlan(Tiling(), options.chunk, "tokens one by one, without a kernel")
        call = rule, inputs, options, alignment
        found = (_on_tpu if device == "tpu" else _on_gpu)(*call, self.limits)
        return Unsupported(found) if isinstance(found, str) else found

    def run(
        self,
        rule: Rule,
        inputs: ScanInputs,
        options: ScanOptions,
        alignment: Alignment,
        plan: KernelPlan,
    ) -> ScanResult:
        """As the XLA backend, with the kernel in place of its loop over tiles.

        Barriers keep XLA from moving what comes before and after into other layouts: it would turn
        queries, outputs and their gradients to float32 first, and then copy twice as much.
        """
        streams = jax.lax.optimization_barrier((inputs.q, inputs.k, inputs.v))
        inputs = inputs._replace(**dict(zip("qkv", streams)))
        options = options.replace(chunk=plan.chunk)
        found = run_tiles(rule, inputs, options, alignment, plan.tiling)
        return found._replace(y=jax.lax.optimization_barrier(found.y))


def _on_tpu(
    rule: Rule,
    inputs: ScanInputs,
    options: ScanOptions,
    alignment: Alignment,
    limits: TpuLimits | None,
) -> KernelPlan | str:
    limits = limits or LIMITS
    vmem = limits.vmem or (2**27 if interpreting() else pltpu.get_tpu_info().vmem_capacity_bytes)
    shapes = functools.partial(operand_shapes, rule, inputs, options, alignment)
    found = plan_tpu_kernel(rule, options, shapes, vmem, limits)
    if isinstance(found, str):
        return found
    loop = functools.partial(
        loop_in_kernels, tpu.KERNELS, layout=found.layout, joined=joined(rule, options)
    )
    return KernelPlan(Tiling(found.tile, loop), options.chunk, found)


def _on_gpu(
    rule: Rule, inputs: ScanInputs, options: ScanOptions, alignment: Alignment, limits: Any
) -> KernelPlan | str:
    if options.save_every is not None:
        return f"GPU kernels save the state of every tile, and save_every={options.save_every!r}"
    if rule.carries(1, 1):  # by `benchmarks.gpu_static`, 1,784 bytes of preconditioned_deltanet
        buffers = ", ".join(rule.carries(1, 1))
        return f"GPU kernels carry no buffers of keys ({buffers}), since their threads would spill"
    try:
        from miras.backends.pallas.gpu import kernels as gpu  # Triton may be gone from jax
        from miras.backends.pallas.gpu import plan as gpu_plan
        from miras.backends.pallas.gpu.columns import split_columns
    except ImportError as missing:
        return f"jax {jax.__version__} lacks what GPU kernels are made of ({missing})"
    has = None if interpreting() else capability()
    if has is not None and has < CAPABILITY:
        return f"Triton needs a GPU of compute capability {CAPABILITY}, and this one has {has}"
    budget = limits or gpu_plan.RegisterBudget.at(inputs.v.shape[-1])
    if options.exact:  # then a tile that begins a chunk has a snapshot less to hold
        options = options.replace(chunk=gpu_plan.tile_of(options.chunk, budget))
    shapes = functools.partial(operand_shapes, rule, inputs, options, alignment)
    found = gpu_plan.plan_gpu_kernel(rule, options, shapes, inputs.v.shape[-1], budget)
    if isinstance(found, str):
        return found
    loop = functools.partial(loop_in_kernels, gpu.KERNELS, layout=found.layout)
    return KernelPlan(Tiling(found.tile, split_columns(loop, found.columns)), options.chunk, found)
