"""What a run would be, and one step of a part of it: no data is read, and nothing is written."""

import dataclasses
import math
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from miras.analysis.costs import costs
from miras.config import to_dict, to_json
from miras.parallel import make_mesh
from miras.parallel.config import MeshConfig
from miras.parallel.slices import Slice
from miras.train.config import RunConfig
from miras.train.program import TrainingProgram
from miras.train.sharding import check_fits
from miras.train.step import nats_per_target
from miras.train.summary import model_line

_SHORT = 256  # tokens of a row of the step on a CPU


def dry_run(config: RunConfig, on: Slice | None = None) -> Iterator[str]:
    """The lines of `miras train --dry-run`; the step is taken before the last one.

    Args:
        config: the run.
        on: where it will run; on the devices of this machine, if not given.

    Raises:
        ConfigError: the devices do not divide what they would split.
    """
    devices = jax.device_count() if on is None else on.devices
    sizes = config.mesh.sizes(devices)
    check_fits(config, sizes)
    yield to_json(config)
    yield from _sizes(config)
    yield from _batch(config, sizes, on, devices)
    yield from _data(config)
    yield _first_step(config)


def _sizes(config: RunConfig) -> Iterator[str]:
    data, recipe = config.data, config.train
    found = costs(config.model, data.sequence)
    tokens = recipe.accumulate * data.batch * data.sequence
    # The backward pass costs twice the forward pass, which remat repeats; only the useful is here.
    flops = 3 * found.flops * tokens
    yield f"model: {model_line(config.model)}"
    yield f"parameters: {found.parameters:,}"
    yield (
        f"FLOPs: {found.flops:.3g} a token forward after {data.sequence:,} others, {flops:.3g} an "
        f"update, {flops * recipe.steps:.3g} the run"
    )
    yield (
        f"tokens: {recipe.steps * tokens:,} ({recipe.steps:,} updates of {tokens:,}), "
        f"{recipe.steps * tokens / found.parameters:.1f} a parameter"
    )
    cooldown = f", cooldown {recipe.cooldown_steps:,}" if recipe.schedule == "wsd" else ""
    kind = to_dict(recipe.optimizer)["kind"]
    yield (
        f"optimiser: {kind}, {recipe.schedule} from {recipe.learning_rate:g} after a "
        f"warm-up of {recipe.warmup_steps:,} updates{cooldown}, weight decay "
        f"{recipe.weight_decay:g}"
    )


def _batch(
    config: RunConfig, sizes: dict[str, int], on: Slice | None, devices: int
) -> Iterator[str]:
    data, recipe = config.data, config.train
    if on is None:
        where = f"the {devices} device{'s'[: devices > 1]} here"
    else:
        hosts = on.count * on.hosts
        where = f"{on.name}: {devices} chips of {hosts} host{'s'[: hosts > 1]}"
    axes = " x ".join(f"{name}={size}" for name, size in sizes.items() if size > 1)
    yield f"mesh: {axes or 'one device'} on {where}"
    own = data.batch // (sizes["data"] * sizes["fsdp"])
    times = f"{recipe.accumulate} x " if recipe.accumulate > 1 else ""
    yield (
        f"batch: {times}{data.batch:,} rows of {data.sequence:,} tokens; {own:,} rows of "
        f"{data.sequence // sizes['seq']:,} a device"
    )


def _data(config: RunConfig) -> Iterator[str]:
    data = config.data
    what = dict(data.mix) or data.source if data.task is None else data.task
    yield f"data: {what}, tokenizer {data.tokenizer} (vocabulary {config.model.vocab:,})"


def _first_step(config: RunConfig) -> str:
    small = _reduced(config)
    mesh = make_mesh(small.mesh)
    start = time.perf_counter()
    program = TrainingProgram(small, mesh)
    with jax.set_mesh(mesh):
        state = jax.jit(program.create, out_shardings=program.shardings)()
        run = program.compile()
        _, batches, alive = program.inputs()
        compiled = time.perf_counter()
        _, metrics = run(state, _random(batches, small), jnp.ones((), bool, device=alive.sharding))
        loss = nats_per_target(jax.device_get(metrics.totals))
    done = time.perf_counter()
    model, data = small.model, small.data
    rows = f"{data.batch} row{'s'[: data.batch > 1]}"
    kind = jax.devices()[0].device_kind
    text = program.objective.curve == "bits_per_byte"
    chance = f" (ln {model.vocab} is {math.log(model.vocab):.3f})" if text else ""
    return (
        f"step: {model.layers} of {config.model.layers} layers, {rows} of {data.sequence:,} random "
        f"tokens on {mesh.size} {kind}: loss {loss:.3f}{chance}, gradient norm "
        f"{float(metrics.gradient_norm):.3g}, "
        f"{compiled - start:.1f} s to compile, {done - compiled:.1f} s to run"
    )


def _reduced(config: RunConfig) -> RunConfig:
    """The run with one group of layers, a row for each device, and short rows on a CPU."""
    model, data = config.model, config.data
    sequence = data.sequence
    if jax.default_backend() == "cpu":
        align = model.align
        sequence = min(sequence, align * max(1, _SHORT // align))
    return dataclasses.replace(
        config,
        model=dataclasses.replace(model, layers=len(model.letters)),
        data=dataclasses.replace(data, batch=jax.device_count(), sequence=sequence),
        train=dataclasses.replace(config.train, accumulate=1),
        mesh=MeshConfig(max_replicated=1.0),
    )


def _random(batches: Any, config: RunConfig) -> dict[str, jax.Array]:
    """One batch of random tokens, a document a row, or of random numbers."""
    shape = batches["inputs"].shape
    tokens = jax.random.randint(jax.random.key(0), shape, 0, config.model.vocab)
    values = {"inputs": tokens, "targets": jnp.roll(tokens, -1, axis=-1)}

    def of(name: str, like: Any) -> jax.Array:
        if jnp.issubdtype(like.dtype, jnp.floating) and name != "target_bytes":
            return jax.random.normal(jax.random.key(len(name)), like.shape)
        if name in values and like.shape == shape:
            return values[name]
        return jnp.ones(like.shape) if name != "targets" else jnp.zeros(like.shape)

    return {
        name: jax.device_put(of(name, like).astype(like.dtype), like.sharding)
        for name, like in batches.items()
    }
