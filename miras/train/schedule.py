"""Learning rate schedules."""

import jax.numpy as jnp
import optax

from miras.config import require
from miras.train.config import TrainConfig

_FINAL = 0.1  # the cosine ends at this fraction of the peak, as is usual for language models


def schedule(config: TrainConfig) -> optax.Schedule:
    """Learning rate by update: a linear warm-up to the peak, then `train.schedule`.

    With n updates in total, after the warm-up and at update t:

        cosine    from the peak to a tenth of it at n
        constant  the peak
        wsd       the peak, and peak (1 - sqrt((t - n + c) / c)) over the last c = `cooldown`
                  updates: warm-up, stable, decay (2404.06395) with the decay of 2405.18392

    The first update is made at 1/(warmup + 1) of the peak, so that none is wasted.

    Raises:
        ConfigError: warm-up and decay do not fit into the run. The config cannot check this, as
            its fields may be overridden one at a time.
    """
    warmup, peak = config.warmup_steps, config.learning_rate
    require(
        warmup < config.steps,
        f"train.warmup={warmup} must be less than train.steps={config.steps}: use fewer warm-up "
        "steps, or more steps.",
    )
    first = peak / (warmup + 1)
    if config.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(
            init_value=first,
            peak_value=peak,
            warmup_steps=warmup,
            decay_steps=config.steps,
            end_value=_FINAL * peak,
        )
    parts, starts = [optax.constant_schedule(peak)], []
    if warmup:
        parts, starts = [optax.linear_schedule(first, peak, warmup), *parts], [warmup]
    if config.schedule == "wsd":
        cooldown = config.cooldown_steps
        require(
            warmup + cooldown <= config.steps,
            f"train.cooldown={cooldown} and the warm-up of {warmup} updates do not fit into "
            f"train.steps={config.steps}: use a shorter cooldown, or more steps.",
        )
        down = lambda t: peak * (1 - jnp.sqrt(jnp.clip(t / cooldown, 0, 1)))  # noqa: E731
        parts, starts = [*parts, down], [*starts, config.steps - cooldown]
    return optax.join_schedules(parts, starts)
