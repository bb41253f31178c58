"""Measures one model with many settings of its chunk, on one text, in float32.

Layers are compared on equal inputs, those of the online model, so that differences do not
accumulate over layers; bits per byte are those of the whole model, in which they do.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

from miras.analysis.staleness.plan import ONLINE, ChunkSetting, StalenessPlan
from miras.analysis.staleness.text import HeldOutText
from miras.array_typing import Array
from miras.models import LanguageModel, LanguageModelConfig
from miras.models.blocks import Block, BlockInputs, depths
from miras.train.state import Params, structure
from miras.train.step import bits_per_byte, make_eval_step

_TIMES = 3


class SettingResult(NamedTuple):
    """The measurements of one setting.

    Attributes:
        setting: the setting.
        by_layer: ||y - y_online|| / ||y_online|| of each layer's memory outputs, before the output
            norm, over rows, tokens and heads together.
        bits_per_byte: of the whole model, teacher-forced.
        seconds_per_token: of the whole model's forward pass, median of three.
    """

    setting: ChunkSetting
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
    progress: Callable[[ChunkSetting, int], None] = lambda setting, n: None,
) -> dict[ChunkSetting, SettingResult]:
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


def layer_inputs(config: LanguageModelConfig, params: Params, tokens: Array | np.ndarray) -> Array:
    """The inputs of each layer's mixer, [layers, B, T, width], in the given model."""
    graph = _block(config)

    @jax.jit
    def run(params: Params, tokens: Array) -> Array:
        def layer(x: Array, xs: tuple[Params, Array]):
            block, whole = nnx.merge(graph, xs[0]), BlockInputs(segment_ids=None, mask=None)
            after, _, _ = block(x, None, whole, xs[1], segments_at_chunks=True, health=False)
            return after, block.mixer_norm(x)

        x, layers = params["embedding"][tokens], (_blocks(params), _depths(config))
        return jax.lax.scan(layer, x, layers)[1]

    return run(params, tokens)


def memory_outputs(config: LanguageModelConfig, params: Params, inputs: Array) -> Array:
    """The outputs of each layer's memories on given inputs, [layers, B, T, width].

    They are raw: without output norm, output gate and projection.
    """
    graph = _block(config)

    @jax.jit
    def run(params: Params, inputs: Array) -> Array:
        def layer(xs: tuple[Params, Array, Array]) -> Array:
            memory = nnx.merge(graph, xs[0]).mixer
            memory.norm = memory.gate = None
            memory.out = _identity
            return memory(xs[2], depth=xs[1])[0]

        return jax.lax.map(layer, (_blocks(params), _depths(config), inputs))

    return run(params, inputs)


def _identity(y: Array) -> Array:
    return y


def _blocks(params: Params) -> Params:
    """The parameters of all blocks, leaves [layers, ...]."""
    return params["groups"]["blocks"]["M0"]


def _depths(config: LanguageModelConfig) -> Array:
    """The relative depth of each layer, as `LanguageModel` passes it."""
    return depths(config)[:, 0]


def _block(config: LanguageModelConfig) -> nnx.GraphDef:
    """The graph of one block; its parameters are a slice of the model's."""
    return nnx.split(nnx.eval_shape(lambda: Block(config, "M", nnx.Rngs(0))), nnx.Param)[0]


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
