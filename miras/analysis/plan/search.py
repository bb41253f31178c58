"""Search: meshes, accumulated batches and rematerialisation, ranked by the analytic plan."""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

from miras.analysis.plan.job import Job
from miras.analysis.plan.predict import Prediction, predict
from miras.analysis.plan.slices import PlannedSlice
from miras.errors import ConfigError
from miras.models.remat import canonical
from miras.train.config import RunConfig

_REMAT = ("full", "save_memory_outputs", "minimal", "none")
_ACCUMULATE = (1, 2, 4, 8)
_TENSOR = (1, 2, 4, 8)
_COPIES = (1, 2, 4, 8)


class Candidate(NamedTuple):
    """A config and what is known of it.

    Attributes:
        config: the run.
        prediction: its plan; None where the config is invalid on the slice.
        verdict: "fits", "fits barely" (by less than the error of the estimate), or why not.
    """

    config: RunConfig
    prediction: Prediction | None
    verdict: str

    @property
    def remat(self) -> str:
        """The policy by its name."""
        kind = self.config.model.remat
        return {True: "full", False: "none"}[kind] if isinstance(kind, bool) else kind

    @property
    def overrides(self) -> str:
        """What it sets, as words of the command line."""
        mesh, train = self.config.mesh, self.config.train
        return (
            f"data.batch={self.config.data.batch} accumulate={train.accumulate} remat={self.remat} "
            f"mesh.data={mesh.data} mesh.fsdp={mesh.fsdp} mesh.tensor={mesh.tensor}"
        )


def search(config: RunConfig, on: PlannedSlice) -> list[Candidate]:
    """All candidates with the tokens a step of the config: those that fit first, fastest first."""
    found = [_judged(candidate, on) for candidate in _candidates(config, on)]

    def order(candidate: Candidate) -> tuple[bool, float]:
        plan = candidate.prediction
        return (plan is None or not plan.fits, plan.step if plan else float("inf"))

    return sorted(found, key=order)


def _candidates(config: RunConfig, on: PlannedSlice) -> Iterator[RunConfig]:
    rows = config.data.batch * config.train.accumulate
    inside = on.chips // on.slices
    for tensor in _TENSOR:
        for copies in _COPIES:
            if inside % (tensor * copies):
                continue
            mesh = dataclasses.replace(
                config.mesh,
                data=on.slices * copies,
                fsdp=inside // (tensor * copies),
                tensor=tensor,
                seq=1,
                slices=on.slices,
            )
            for accumulate in _ACCUMULATE:
                if rows % accumulate == 0:
                    data = dataclasses.replace(config.data, batch=rows // accumulate)
                    train = dataclasses.replace(config.train, accumulate=accumulate)
                    for remat in _REMAT:
                        model = dataclasses.replace(config.model, remat=canonical(remat))
                        yield dataclasses.replace(
                            config, data=data, train=train, model=model, mesh=mesh
                        )


def _judged(config: RunConfig, on: PlannedSlice) -> Candidate:
    try:
        plan = predict(Job(config, on))
    except ConfigError as error:
        return Candidate(config, None, str(error))
    if plan.fits:
        return Candidate(config, plan, "fits barely" if plan.fits_barely else "fits")
    peak, most = plan.memory.peak / 2**30, on.chip.hbm / 2**30
    return Candidate(config, plan, f"needs {peak:.1f} GiB of {most:.1f}: {advice(plan)}")


def advice(plan: Prediction) -> str:
    """What to change so that a step needs less HBM: by the kind that needs most."""
    kinds = plan.memory._asdict()
    largest = max(kinds, key=lambda name: kinds[name])
    rows = plan.job.rows
    fewer = f"train.accumulate={2 * plan.job.config.train.accumulate} with half of data.batch"
    if rows <= 1:
        fewer = "mesh.tensor or mesh.seq, since a chip has one row"
    remat = plan.job.remat
    advices = {
        "parameters": "more chips along mesh.fsdp",
        "optimiser": "more chips along mesh.fsdp, or train.optimizer_dtype=bfloat16",
        "gradients": "more chips along mesh.fsdp",
        "inputs": "remat=full" if remat != "full" else fewer,
        "memories": "remat=full" if remat not in ("full", "offload") else "save_every=sqrt",
        "activations": fewer,
        "weights": "mesh.tensor",
        "loss": "a smaller train.loss_chunk",
    }
    return f"most is {largest}; use {advices[largest]}"
