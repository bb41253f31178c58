"""A plan whose memory kernels take what their compiled schedules say, not what the fit says."""

import dataclasses

from miras.analysis.plan.compiled import Compiled
from miras.analysis.plan.predict import FITTED, Prediction, memories
from miras.analysis.plan.step_kernels import StepKernel


def scheduled(plan: Prediction, found: Compiled | None) -> Prediction:
    """The plan with the time of the kernels that the compiled step has.

    The fit stays where there is no such time: nothing was compiled, a schedule could not be read,
    or the step runs fewer kernels than it has memories. Its assumption then says so.

    Args:
        plan: the analytic one.
        found: what the compiler says of its step; None if it was not asked.
    """
    if found is None or found.error or FITTED not in plan.assumptions or not plan.kernels:
        return plan
    job = plan.job
    kernels = [StepKernel(**each) for each in found.kernels]
    expected = sum(1 for _ in memories(job)) * job.groups * job.config.train.accumulate
    backward = sum(kernel.calls for kernel in kernels if kernel.backward)
    why = found.unscheduled
    if not why and backward < expected:
        why = f"the compiled step runs {backward} backward kernels for {expected} memories"
    if why:
        return _assuming(plan, f"{FITTED} ({job.slice.name}: {why})")
    chip = job.slice.chip
    seconds = sum(kernel.cycles(chip.cores) for kernel in kernels) / chip.clock
    told = (
        f"memory kernels on {job.slice.name}: bundles of the compiled step's own kernels, "
        f"{1e3 * seconds:.3g} ms; the fit says {1e3 * plan.kernels:.3g} ms, "
        f"{plan.kernels / seconds:.2f} times as much"
    )
    return dataclasses.replace(_assuming(plan, told), kernels=seconds, fitted=plan.kernels)


def _assuming(plan: Prediction, told: str) -> Prediction:
    assumed = (told if text == FITTED else text for text in plan.assumptions)
    return dataclasses.replace(plan, assumptions=tuple(assumed))
