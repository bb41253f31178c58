"""The run that a command's arguments name: a new config, or the folder of a trained run."""

import pathlib
from typing import TYPE_CHECKING

from miras.config import override
from miras.errors import fail

if TYPE_CHECKING:
    from miras.train import Run, RunConfig


def run_config(
    name: str, overrides: list[str], source: str | None, resumed: pathlib.Path | None = None
) -> "RunConfig":
    """The config of a run from a preset, overrides and a data source.

    The vocabulary size is that of the data's tokenizer, unless an override sets it.

    Args:
        name: the preset.
        overrides: `KEY=VALUE` each.
        source: replaces `data.source`, unless None.
        resumed: folder of a run to resume, whose own copy of the tokenizer is then read.

    Raises:
        ConfigError: for an invalid override, or a tokenizer that cannot be read.
    """
    from miras.data import vocabulary
    from miras.presets import preset
    from miras.train import RunConfig
    from miras.train.runs import provenance

    config = with_source(override(RunConfig(model=preset(name)), *overrides), source)
    if not any(word.partition("=")[0].strip() in ("vocab", "model.vocab") for word in overrides):
        data = config.data if resumed is None else provenance.relocate(resumed, config).data
        config = override(config, f"model.vocab={vocabulary(data)}")
    return config


def with_source(config: "RunConfig", source: str | None) -> "RunConfig":
    """The config with another data source, unless None."""
    return config if source is None else override(config, f"data.source={source}")


def load_run(folder: str) -> "Run":
    """Load a run from its folder, and warn of each damaged checkpoint that was skipped."""
    from miras.train import load_run as load

    run = load(folder)
    for step, reason in run.damaged.items():
        fail(f"warning: checkpoint {step} is damaged ({reason}); using step {run.step}.", 0)
    return run
