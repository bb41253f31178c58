"""Options of the TPU compiler that a run compiles its step with, by chip.

They are few, and each is one that Google recommends for training; CPUs and GPUs have none.
`train.compiler_options` adds to them, replaces them, or removes one by the value "".

    several chips     overlap all-gathers of parameters with products ("continuation fusion")
    several slices    reduce gradients over slices while the backward pass runs
    v6e               96 of the 128 MiB of vector memory for a single operation

Sources: `CF_FOR_ALL_GATHER`, `DATA_PARALLEL_OVERLAP` and `DENSE_VMEM_LIMIT_FLAG` in
https://github.com/AI-Hypercomputer/maxtext/blob/main/benchmarks/xla_flags_library.py.
"""

from collections.abc import Mapping

from jax.sharding import Mesh

Options = dict[str, str]

_GATHERS = {
    "xla_tpu_enable_async_collective_fusion": "true",
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather": "true",
    "xla_tpu_enable_async_collective_fusion_multiple_steps": "true",
    "xla_tpu_overlap_compute_collective_tc": "true",
    "xla_enable_async_all_gather": "true",
}
_SLICES = {
    "xla_tpu_enable_data_parallel_all_reduce_opt": "true",
    "xla_tpu_data_parallel_opt_different_sized_ops": "true",
}
_CHIPS = {"TPU v6 lite": {"xla_tpu_scoped_vmem_limit_kib": "98304"}}


def compiler_options(mesh: Mesh, slices: int, given: Mapping[str, str]) -> Options:
    """The options of a step.

    Args:
        mesh: of the run, of devices or of a topology.
        slices: of the mesh.
        given: `train.compiler_options`.
    """
    device = mesh.devices.flat[0]
    found: Options = {}
    if device.platform == "tpu":
        found |= _CHIPS.get(device.device_kind, {})
        found |= _GATHERS if mesh.devices.size > 1 else {}
        found |= _SLICES if slices > 1 else {}
    return {name: value for name, value in (found | dict(given)).items() if value != ""}
