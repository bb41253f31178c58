"""Jobs that the tests share: small runs on described chips."""

from miras.analysis.plan.chips import Chip
from miras.analysis.plan.job import Job
from miras.analysis.plan.slices import planned_slice
from miras.config import override
from miras.presets import preset
from miras.train import RunConfig

CHIP = Chip(name="cpu", flops=1e12, hbm=2.0**30, bandwidth=1e11, efficiency=0.5)


def job(name: str, *overrides: str, on: str = "cpu") -> Job:
    """A preset with overrides on a slice."""
    config = override(RunConfig(model=preset(name)), *overrides)
    return Job(config, planned_slice(on, {"cpu": CHIP}))
