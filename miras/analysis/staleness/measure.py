"""Measures one model with many settings of its chunk, on one text, in float32.

Layers are compared on equal inputs, those of the online model, so that differences do not
accumulate over layers; bits per byte are those of the whole model, in which they do.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from miras.analysis.staleness.memories import chunked
from miras.analysis.staleness.plan import ONLINE, Setting, StalenessPlan
from miras.analysis.staleness.text import HeldOutText
from miras.array_typing import Array
from miras.layers import MemoryLayer
from miras.models import LanguageModel, LanguageModelConfig
from miras.models.blocks import Block, BlockInputs, depths
from miras.train.state import Params, structure
from miras.train.step import bits_per_byte, make_eval_step

_TIMES = 3
Inputs = dict[str, Array]  # by the name of a block


class SettingResult(NamedTuple):
    """The measurements of one setting.

    Attributes:
        setting: the setting.
        by_layer: ||y - y_online|| / ||y_online|| of the memory outputs of each layer that has a
            memory, before the output norm, over rows, tokens and heads together.
        bits_per_byte: of the whole model, teacher-forced.
        seconds_per_token: of the whole model's forward pass, median of three.
    """

    setting: Setting
    by_layer: tuple[float, ...]
    bits_per_byte: float
    seconds_per_token: float

    @property
    def distance(self) -> float:
        """The mean over layers."""
        return statistics.fmean(self.by_layer)


def new_parameters(config: LanguageModelConfig, seed: int) -> Params:
    """The parameters of an untrained model."""
    # With full optimisation, XLA compiles the random bits five times as long as all else (CPU).
    quick = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    options = quick if jax.default_backend() == "cpu" else None

    @functools.partial(jax.jit, compiler_options=options)
    def make() -> Params:
        _, params = nnx.split(LanguageModel(config, nnx.Rngs(seed)), nnx.Param)
        return nnx.to_pure_dict(params)

    return make()


def measure(
    config: LanguageModelConfig,
    params: Params,
    plan: StalenessPlan,
    text: HeldOutText,
    progress: Callable[[Setting, int], None] = lambda setting, n: None,
) -> dict[Setting, SettingResult]:
    """Measure every setting of a plan.

    Args:
        config: the model.
        params: its parameters.
        plan: from `make_plan`.
        text: from `held_out`.
        progress: called with each setting and its number before it is measured.
    """
    config = dataclasses.replace(config, dtype="float32", remat=False)
    online = layer_inputs(ONLINE.apply(config), params, text.batch["inputs"])
    results, reference = {}, None
    for n, setting in enumerate(plan.settings, 1):
        progress(setting, n)
        changed = setting.apply(config)
        y = np.asarray(memory_outputs(changed, params, online), np.float64)
        reference = y if reference is None else reference  # the online setting is the first
        by_layer = tuple(_distance(*pair) for pair in zip(y, reference))
        bits, seconds = _whole_model(changed, params, text)
        results[setting] = SettingResult(setting, by_layer, bits, seconds)
    return results


def layer_inputs(config: LanguageModelConfig, params: Params, tokens: Array | np.ndarray) -> Inputs:
    """The inputs of the mixers of each block, leaves [groups, B, T, width], in the given model."""
    graphs, names = _graphs(config), _names(config)

    @jax.jit
    def run(params: Params, tokens: Array) -> Inputs:
        def group(x: Array, xs: tuple[Params, Array]):
            read = {}
            for n, name in enumerate(names):
                block, whole = nnx.merge(graphs[name], xs[0][name]), BlockInputs(None, None)
                read[name] = block.mixer_norm(x)
                x, _, _ = block(x, None, whole, xs[1][n], segments_at_chunks=True, health=False)
            return x, read

        x = params["embedding"][tokens]
        return jax.lax.scan(group, x, (_blocks(params), depths(config)))[1]

    return run(params, tokens)


def memory_outputs(config: LanguageModelConfig, params: Params, inputs: Inputs) -> Array:
    """The outputs of the memories on given inputs, [layers with a memory, B, T, width].

    They are raw: without output norm, output gate and projection; of a mixer that is more than a
    layer around a memory they are the mixer's.
    """
    graphs, names = _graphs(config), _names(config)
    measured = [names[n] for n in chunked(config)]

    @jax.jit
    def run(params: Params, inputs: Inputs) -> Array:
        def group(xs: tuple[Params, Array, Inputs]) -> Array:
            outputs = []
            for name in measured:
                mixer: Any = nnx.merge(graphs[name], xs[0][name]).mixer
                if isinstance(mixer, MemoryLayer):
                    _strip(mixer)
                outputs.append(mixer(xs[2][name], depth=xs[1][names.index(name)])[0])
            return jnp.stack(outputs)

        y = jax.lax.map(group, (_blocks(params), depths(config), inputs))
        return y.reshape(-1, *y.shape[2:])

    return run(params, inputs)


def _strip(layer: Any) -> None:
    """Take the output norm, the output gate and the projection from a layer."""
    layer.norm = layer.gate = None
    layer.out = lambda y: y


def _blocks(params: Params) -> Params:
    """The parameters of the blocks of the pattern by name, leaves [groups, ...]."""
    return params["groups"]["blocks"]


def _names(config: LanguageModelConfig) -> list[str]:
    """The names of the blocks of the pattern, in order."""
    return [f"{letter}{n}" for n, letter in enumerate(config.letters)]


def _graphs(config: LanguageModelConfig) -> dict[str, nnx.GraphDef]:
    """The graph of each block; its parameters are a slice of the model's."""

    def graph(letter: str) -> nnx.GraphDef:
        block = nnx.eval_shape(lambda: Block(config, letter, nnx.Rngs(0)))
        return nnx.split(block, nnx.Param)[0]

    of_letter = {letter: graph(letter) for letter in dict.fromkeys(config.letters)}
    return {name: of_letter[name[0]] for name in _names(config)}


def _distance(y: np.ndarray, reference: np.ndarray) -> float:
    """The relative distance in the Frobenius norm; 0 if both are 0."""
    size = float(np.linalg.norm(reference))
    apart = float(np.linalg.norm(y - reference))
    return apart / size if size else (0.0 if apart == 0 else float("inf"))


def _whole_model(
    config: LanguageModelConfig, params: Params, text: HeldOutText
) -> tuple[float, float]:
    """Bits per byte, and seconds per token."""
    step = make_eval_step(structure(config)[0])
    totals = jax.block_until_ready(step(params, text.batch))
    seconds = []
    for _ in range(_TIMES):
        start = time.perf_counter()
        jax.block_until_ready(step(params, text.batch))
        seconds.append(time.perf_counter() - start)
    return bits_per_byte(totals), statistics.median(seconds) / (text.rows * text.length)
