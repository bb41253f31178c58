"""What may change about a run that goes on, and what has to stay."""

import dataclasses

import jax.numpy as jnp

from miras.config import config_hash, difference
from miras.errors import ConfigError
from miras.train.config import RunConfig, TrainConfig
from miras.train.optimizer import schedule

# Logging, evaluation and checkpoints: what a run looks at and keeps, and not what it computes.
FREE = (
    "logger",
    "log_every",
    "eval_every",
    "eval_batches",
    "health_every",
    "checkpoint_every",
    "checkpoint_minutes",
    "keep",
)


def continued(saved: RunConfig, given: RunConfig, step: int, folder: str) -> RunConfig:
    """The config with which a run goes on.

    Logging, evaluation and checkpoints may change. `steps` may where no update that was made had
    another learning rate under the new number: with "constant" always, with "wsd" until its decay
    begins, with "cosine" never. A warm-up that is not given stays that of the run.

    Args:
        saved: the config in the run's folder.
        given: the one it shall go on with.
        step: updates made.
        folder: the run's, for the error.

    Returns:
        `given`, with the run's own warm-up.

    Raises:
        ConfigError: naming all fields that must stay, with the old and the new value.
    """
    allowed: set[str] = set(FREE)
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
    lines = [
        line
        for line in difference(saved, given)
        if line.partition(":")[0] not in {f"train.{name}" for name in allowed}
    ]
    if lines:
        raise ConfigError(
            f"{folder} holds a run of another config ({'; '.join([*lines, *reasons])}): give the "
            "same config to go on with it, or another folder with --out."
        )
    return given


def _reasons_for_steps(saved: TrainConfig, given: TrainConfig, step: int) -> list[str]:
    """Why `steps` cannot change; empty where it can."""
    if saved.schedule != given.schedule:
        return [f"train.steps may change under the schedule {saved.schedule!r} of the run only"]
    if given.schedule == "cosine":
        return ["train.steps shapes the whole cosine; wsd and constant can be made longer"]
    if given.steps < step:
        return [f"{step} steps are done already"]
    done = jnp.arange(step)
    if step and not jnp.array_equal(schedule(saved)(done), schedule(given)(done)):
        return [
            "the updates that were made had other learning rates under the new train.steps; --from "
            "starts a new run from this one"
        ]
    return []


def short_hash(config: RunConfig) -> str:
    """Eight hex digits of what a run computes: what is free to change does not count."""
    free = {f.name: f.default for f in dataclasses.fields(TrainConfig) if f.name in FREE}
    recipe = dataclasses.replace(config.train, **free)
    return config_hash(dataclasses.replace(config, train=recipe))[:8]
