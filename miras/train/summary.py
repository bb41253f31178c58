"""The lines that a run prints first: model, size, tokens, device and folder."""

import math
import pathlib
from collections.abc import Iterator

import jax

from miras.models import LanguageModelConfig
from miras.presets import PRESETS
from miras.train.config import RunConfig
from miras.train.state import Params


def summary_lines(config: RunConfig, params: Params, folder: pathlib.Path) -> Iterator[str]:
    """The summary of a run, line by line.

    Args:
        config: the run.
        params: its parameters, which may be abstract.
        folder: of the run.
    """
    recipe, data, devices = config.train, config.data, jax.devices()
    batch = recipe.accumulate * data.batch
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    yield f"model: {_model(config.model)}"
    yield f"parameters: {count:,}"
    yield (
        f"tokens: {recipe.steps * batch * data.sequence:,} "
        f"({recipe.steps} steps of {batch} rows of {data.sequence})"
    )
    yield f"device: {devices[0].device_kind}" + (f" (1 of {len(devices)})" if devices[1:] else "")
    yield f"folder: {folder}"


def _model(config: LanguageModelConfig) -> str:
    kinds = config.rule.kinds()
    rule = (
        f"{kinds['memory']} memory, {kinds['bias']} bias, {kinds['retention']} retention, "
        f"{kinds['algorithm']}"
    )
    preset = next((n for n, entry in PRESETS.items() if entry.build().rule == config.rule), None)
    name = f"{preset} ({rule})" if preset else rule
    return f"{name}; layers: {config.layers}, width: {config.width}, heads: {config.heads}"
