"""What the model FLOPs utilisation of a run is measured against."""

import dataclasses

import jax

from miras.analysis.plan.chips import CHIPS, Chip
from miras.analysis.plan.flops import step_flops
from miras.analysis.plan.job import Job
from miras.analysis.plan.slices import PlannedSlice
from miras.errors import ConfigError
from miras.parallel import MeshConfig
from miras.train import RunConfig
from miras.train.interval_means import Utilization

# Chips by the start of what jax calls their devices; the longest that fits counts.
_NAMES = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5": "v5p",
    "TPU v6 lite": "v6e",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H200": "h200",
}


def utilization(config: RunConfig) -> Utilization | None:
    """Of a run on this process's devices; None where their peak or the run's FLOPs are not known.

    Args:
        config: of the run.
    """
    chip = chip_of(jax.devices()[0].device_kind)
    if chip is None:
        return None
    try:
        return Utilization(model_flops(config), chip.flops)
    except ConfigError:  # of an objective without `head`
        return None


def model_flops(config: RunConfig) -> float:
    """Model FLOPs of an update, over all devices; see `miras.analysis.plan.flops`.

    Raises:
        ConfigError: they are not known, see `miras.analysis.plan.job.Job`.
    """
    one = PlannedSlice(CHIPS["v5e"], (1,), 1, "v5e-1")  # the count does not depend on it
    return step_flops(Job(dataclasses.replace(config, mesh=MeshConfig()), one)).model


def chip_of(device_kind: str) -> Chip | None:
    """The chip of a device of this name; None if it is not known."""
    names = [name for name in _NAMES if device_kind.startswith(name)]
    return CHIPS[_NAMES[max(names, key=len)]] if names else None
