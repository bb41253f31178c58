"""The run that a command's arguments name: a new config, or the folder of a trained run."""

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Literal

from miras.config import override, require
from miras.errors import fail

if TYPE_CHECKING:
    from miras.train import Run, RunConfig


def run_config(
    name: str,
    overrides: list[str],
    source: str | None,
    resumed: pathlib.Path | None = None,
    *,
    rates: Literal["matched", "raw", "default"] = "default",
    saved: "RunConfig | None" = None,
    recipe: str | None = None,
    on: str | None = None,
    with_data: bool = True,
) -> "RunConfig":
    """The config of a run from a preset, overrides and a data source.

    The vocabulary size is that of the data's tokenizer, unless an override or a recipe sets it.

    Args:
        name: the preset.
        overrides: `KEY=VALUE` each.
        source: replaces `data.source`, unless None.
        resumed: folder of a run to resume, whose own copy of the tokenizer is then read.
        rates: inner rates after a swap; see `miras.analysis.strength.swap.settle`.
        saved: config of a run to resume, whose inner rates are then taken.
        recipe: named run that the overrides change, in place of the defaults of a run.
        on: the slice whose mesh the run has, but for what overrides say of it.
        with_data: whether the data is here, so that its tokenizer can be read.

    Raises:
        ConfigError: for an invalid override, or a tokenizer that cannot be read.
    """
    from miras.analysis.strength.swap import split_strength
    from miras.data import vocabulary
    from miras.presets import preset
    from miras.train import RunConfig
    from miras.train.runs import provenance

    overrides, target = split_strength(overrides)
    base = RunConfig(model=preset(name))
    if recipe is not None:
        from miras.recipes import find

        base = find(recipe).build(base.model)
    config = override(base, *overrides)
    if on is not None:
        config = with_mesh(config, on, overrides)
    require(
        source is None or not config.data.mix,
        "--data and data.mix are both given: add the source to data.mix with a weight, or leave "
        "one of the two out.",
    )
    if recipe is not None and source is not None:
        config = _with_tokenizer_of(config, source)
    config = with_source(config, source)
    given = any(word.partition("=")[0].strip() in ("vocab", "model.vocab") for word in overrides)
    if with_data:
        config = with_settled_task(config)
    if with_data and recipe is None and not given:
        data = config.data if resumed is None else provenance.relocate(resumed, config).data
        config = override(config, f"model.vocab={vocabulary(data)}")
    return with_settled_rates(config, base, overrides, rates, saved=saved, target=target)


def with_settled_task(config: "RunConfig") -> "RunConfig":
    """The config of a run with what its task takes from the data, see `TaskConfig.settled`."""
    if config.data.task is None:
        return config
    task = config.data.task.settled(config.data)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, task=task))


def with_settled_rates(
    config: "RunConfig",
    base: "RunConfig",
    overrides: list[str],
    rates: Literal["matched", "raw", "default"],
    *,
    saved: "RunConfig | None" = None,
    target: float | None = None,
) -> "RunConfig":
    """The config of a run with the inner rates that `miras.analysis.strength.swap.settle` gives."""
    from miras.analysis.strength.swap import settle
    from miras.cli.options import model_overrides

    model = settle(
        config.model,
        base.model,
        model_overrides(overrides),
        rates,
        saved=None if saved is None else saved.model,
        target=target,
    )
    return dataclasses.replace(config, model=model)


def _with_tokenizer_of(config: "RunConfig", source: str) -> "RunConfig":
    """The config with the tokenizer of another copy of the prepared set that a recipe names."""
    folder, slash, name = config.data.tokenizer.rpartition("/")
    if not slash or folder != config.data.source:
        return config
    return override(config, f"data.tokenizer={source.rstrip('/')}/{name}")


def with_mesh(config: "RunConfig", on: str, overrides: list[str]) -> "RunConfig":
    """The config of a run with the mesh of a slice, but for the axes that overrides give.

    Raises:
        ConfigError: for an unknown slice, or one that does not divide the rows of a batch.
    """
    from miras.parallel.slices import mesh_of, parse_slice

    mesh = mesh_of(parse_slice(on), config.data.batch)
    own = [word for word in overrides if word.strip().startswith("mesh.")]
    return override(dataclasses.replace(config, mesh=mesh), *own)


def with_source(config: "RunConfig", source: str | None) -> "RunConfig":
    """The config with another data source in place of its source or mixture, unless None."""
    if source is None:
        return config
    return override(config, f"data.source={source}", "data.mix={}")


def load_run(folder: str) -> "Run":
    """Load a run from its folder, and warn of each damaged checkpoint that was skipped."""
    from miras.train import load_run as load

    run = load(folder)
    for step, reason in run.damaged.items():
        fail(f"warning: checkpoint {step} is damaged ({reason}); using step {run.step}.", 0)
    return run
