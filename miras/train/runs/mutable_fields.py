"""Which fields of a config may change when a run resumes, and which may not."""

import dataclasses

import jax.numpy as jnp

from miras.config import config_hash, difference
from miras.errors import ConfigError
from miras.parallel import MeshConfig
from miras.train.config import RunConfig, TrainConfig
from miras.train.schedule import schedule

# Logging, profiles, evaluation and checkpoints, which do not affect what a run computes.
MUTABLE_FIELDS = (
    "logger",
    "profile",
    "log_every",
    "eval_every",
    "eval_batches",
    "health_every",
    "checkpoint_every",
    "checkpoint_minutes",
    "watchdog_minutes",
    "keep",
)


def resumed_config(saved: RunConfig, given: RunConfig, step: int, folder: str) -> RunConfig:
    """The config with which a run resumes.

    Logging, evaluation, checkpoints and the mesh may change. `steps` may change if all updates so
    far have the same learning rate under the new value: always with "constant", until the decay
    begins with "wsd", and never with "cosine". A warm-up of None keeps that of the run.

    Args:
        saved: the config in the folder of the run.
        given: the config to resume with.
        step: updates done.
        folder: of the run, for the error.

    Returns:
        `given`, with the warm-up of the run.

    Raises:
        ConfigError: fields differ that must not change; the message gives their old and new values.
    """
    allowed: set[str] = set(MUTABLE_FIELDS)
    reasons: list[str] = []
    old, new = saved.train, given.train
    if new.schedule == old.schedule != "cosine":
        if new.warmup is None and (old.warmup is not None or new.steps != old.steps):
            new = dataclasses.replace(new, warmup=old.warmup_steps)
            given = dataclasses.replace(given, train=new)
        if new.warmup_steps == old.warmup_steps:
            allowed.add("warmup")
    if new.steps != old.steps:
        reasons = _reasons_for_steps(old, new, step)
        if not reasons:
            allowed.add("steps")
    free = {f"train.{name}" for name in allowed}
    lines = [
        line
        for line in difference(saved, given)
        if (path := line.partition(":")[0]) not in free and not path.startswith("mesh.")
    ]
    if lines:
        raise ConfigError(
            f"{folder} holds a run of another config ({'; '.join([*lines, *reasons])}): give the "
            "same config to resume it, or another folder with --out."
        )
    return given


def _reasons_for_steps(saved: TrainConfig, given: TrainConfig, step: int) -> list[str]:
    """Why `steps` cannot change; empty if it can."""
    if saved.schedule != given.schedule:
        return [f"train.steps may only change under the schedule {saved.schedule!r} of the run"]
    if given.schedule == "cosine":
        return ["train.steps determines the whole cosine; only wsd and constant can be extended"]
    if given.steps < step:
        return [f"{step} steps are already done"]
    done = jnp.arange(step)
    if step and not jnp.array_equal(schedule(saved)(done), schedule(given)(done)):
        return [
            "earlier updates would have other learning rates under the new train.steps; --from "
            "starts a new run from this one"
        ]
    return []


def short_hash(config: RunConfig) -> str:
    """Eight hex digits that depend only on the fields that a resumed run cannot change."""
    free = {f.name: f.default for f in dataclasses.fields(TrainConfig) if f.name in MUTABLE_FIELDS}
    recipe = dataclasses.replace(config.train, **free)
    return config_hash(dataclasses.replace(config, train=recipe, mesh=MeshConfig()))[:8]
