"""What the model FLOPs utilisation of a run is measured against."""

import jax

from miras.analysis.costs import costs
from miras.train import RunConfig
from miras.train.interval_means import Utilization

# Dense bfloat16 FLOP/s of a device, by the start of its name. TPUs: cloud.google.com/tpu/docs, the
# page of each chip; GPUs: NVIDIA's data sheets of the SXM modules.
_PEAKS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}


def utilization(config: RunConfig) -> Utilization | None:
    """Of a run on this process's devices; None where their peak is not known.

    Args:
        config: of the run.
    """
    peak = peak_flops(jax.devices()[0].device_kind)
    return None if peak is None else Utilization(step_flops(config), peak)


def step_flops(config: RunConfig) -> float:
    """Model FLOPs of an update: three times those of the forward pass of its tokens.

    A token of attention sees half of the others of its row on average.
    """
    data = config.data
    tokens = config.train.accumulate * data.batch * data.sequence
    return 3 * tokens * costs(config.model, context=data.sequence // 2).flops


def peak_flops(device_kind: str) -> float | None:
    """FLOP/s of a device of this name; None if it is not known."""
    names = [name for name in _PEAKS if device_kind.startswith(name)]
    return _PEAKS[max(names, key=len)] if names else None
