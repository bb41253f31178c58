"""The lines that a run prints first: model, size, tokens, devices and folder."""

import math
import os
from collections.abc import Iterator

import jax

from miras.models import LanguageModelConfig
from miras.models.block_config import BlockConfig
from miras.presets import PRESETS
from miras.rule import Rule
from miras.train.config import RunConfig
from miras.train.state import Params


def summary_lines(config: RunConfig, params: Params, folder: os.PathLike[str]) -> Iterator[str]:
    """The summary of a run, line by line.

    Args:
        config: the run.
        params: its parameters, which may be abstract.
        folder: of the run.
    """
    recipe, data, devices = config.train, config.data, jax.devices()
    batch = recipe.accumulate * data.batch
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    yield f"model: {model_line(config.model)}"
    yield f"parameters: {count:,}"
    yield (
        f"tokens: {recipe.steps * batch * data.sequence:,} "
        f"({recipe.steps} steps of {batch} rows of {data.sequence})"
    )
    sizes = config.mesh.sizes(len(devices)).items()
    axes = " x ".join(f"{axis}={size}" for axis, size in sizes if size > 1)
    kind = devices[0].device_kind
    yield f"devices: {len(devices)} x {kind}, {axes}" if axes else f"device: {kind}"
    yield f"folder: {folder}"


def model_line(config: LanguageModelConfig) -> str:
    """The layers, rules and sizes of a model in one line."""
    names = {entry.build().rule: name for name, entry in reversed(PRESETS.items())}
    told = {x: _block(config.block(x), names) for x in dict.fromkeys(config.letters)}
    model = "; ".join(f"{letter}: {block}" for letter, block in told.items())
    model = f"{' '.join(config.letters)}; {model}" if len(told) > 1 else model.partition(": ")[2]
    return f"{model}; layers: {config.layers}, width: {config.width}, heads: {config.heads}"


def _block(block: BlockConfig, names: dict[Rule, str]) -> str:
    """The mixer and the rules of its memories."""
    mixer = block.mixer
    rules = "; ".join(_rule(rule, names) for rule in mixer.rules(block))
    if mixer.kind == "memory":
        return rules
    return mixer.describe(block) + (f": {rules}" if rules else "")


def _rule(rule: Rule, names: dict[Rule, str]) -> str:
    kinds = rule.kinds()
    parts = (
        f"{kinds['memory']} memory, {kinds['bias']} bias, {kinds['retention']} retention, "
        f"{kinds['algorithm']}"
    )
    return f"{names[rule]} ({parts})" if rule in names else parts
