"""Measuring: one model under many settings of its chunk, on one text.

Layers are compared on equal inputs, those of the online model, so that errors do not add up from
layer to layer; bits per byte are the whole model's, where they do. All is done in float32.
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

from miras.analysis.staleness.plan import ONLINE, Plan, Setting
from miras.analysis.staleness.text import Text
from miras.array_typing import Array
from miras.models import LanguageModel, LanguageModelConfig
from miras.models.blocks import Block, Inputs, depths
from miras.train.state import Params, structure
from miras.train.step import bits_per_byte, make_eval_step

_TIMES = 3


class Cell(NamedTuple):
    """One setting's measures.

    Attributes:
        setting: which.
        by_layer: ||y - y_online|| / ||y_online|| of each layer's memory outputs, before the output
            norm, over rows, tokens and heads together.
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
    # XLA's CPU compiler takes five times as long over the random bits as all else does, if let.
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
    plan: Plan,
    text: Text,
    tell: Callable[[Setting, int], None] = lambda setting, n: None,
) -> dict[Setting, Cell]:
    """Measure every setting of a plan.

    Args:
        config: the model.
        params: its parameters.
        plan: as `make_plan` gives it.
        text: as `held_out` gives it.
        tell: called with each setting and its number before it is measured.
    """
    config = dataclasses.replace(config, dtype="float32", remat=False)
    online = layer_inputs(ONLINE.apply(config), params, text.batch["inputs"])
    cells, reference = {}, None
    for n, setting in enumerate(plan.settings, 1):
        tell(setting, n)
        changed = setting.apply(config)
        y = np.asarray(memory_outputs(changed, params, online), np.float64)
        reference = y if reference is None else reference  # the online setting comes first
        by_layer = tuple(_distance(*pair) for pair in zip(y, reference))
        bits, seconds = _whole_model(changed, params, text)
        cells[setting] = Cell(setting, by_layer, bits, seconds)
    return cells


def layer_inputs(config: LanguageModelConfig, params: Params, tokens: Array | np.ndarray) -> Array:
    """What each layer reads, [layers, B, T, width], in the model as it stands."""
    graph = _block(config)

    @jax.jit
    def run(params: Params, tokens: Array) -> Array:
        def layer(x: Array, xs: tuple[Params, Array]):
            block, whole = nnx.merge(graph, xs[0]), Inputs(segment_ids=None, mask=None)
            after, _, _ = block(x, None, whole, xs[1], segments_at_chunks=True, health=False)
            return after, block.mixer_norm(x)

        x, layers = params["embedding"][tokens], (_blocks(params), _depths(config))
        return jax.lax.scan(layer, x, layers)[1]

    return run(params, tokens)


def memory_outputs(config: LanguageModelConfig, params: Params, inputs: Array) -> Array:
    """What each layer's memories answer to given inputs, [layers, B, T, width].

    Nothing behind the memory changes it here: no output norm, gate or projection.
    """
    graph = _block(config)

    @jax.jit
    def run(params: Params, inputs: Array) -> Array:
        def layer(xs: tuple[Params, Array, Array]) -> Array:
            memory = nnx.merge(graph, xs[0]).mixer
            memory.norm = memory.gate = None
            memory.out = _as_it_is
            return memory(xs[2], depth=xs[1])[0]

        return jax.lax.map(layer, (_blocks(params), _depths(config), inputs))

    return run(params, inputs)


def _as_it_is(y: Array) -> Array:
    return y


def _blocks(params: Params) -> Params:
    """The parameters of all blocks, leaves [layers, ...]."""
    return params["groups"]["blocks"]["M0"]


def _depths(config: LanguageModelConfig) -> Array:
    """Where each layer stands, as `LanguageModel` tells it to them."""
    return depths(config)[:, 0]


def _block(config: LanguageModelConfig) -> nnx.GraphDef:
    """The structure of one block, whose parameters are a slice of the model's."""
    return nnx.split(nnx.eval_shape(lambda: Block(config, "M", nnx.Rngs(0))), nnx.Param)[0]


def _distance(y: np.ndarray, reference: np.ndarray) -> float:
    """Relative, in the Frobenius norm; 0 where both are 0."""
    size = float(np.linalg.norm(reference))
    apart = float(np.linalg.norm(y - reference))
    return apart / size if size else (0.0 if apart == 0 else float("inf"))


def _whole_model(config: LanguageModelConfig, params: Params, text: Text) -> tuple[float, float]:
    """Bits per byte, and seconds per token."""
    step = make_eval_step(structure(config)[0])
    totals = jax.block_until_ready(step(params, text.batch))
    seconds = []
    for _ in range(_TIMES):
        start = time.perf_counter()
        jax.block_until_ready(step(params, text.batch))
        seconds.append(time.perf_counter() - start)
    return bits_per_byte(totals), statistics.median(seconds) / (text.rows * text.length)
