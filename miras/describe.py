"""What a model is made of and what it costs, from shapes alone: nothing is computed or allocated.

The costs are those of the mathematics as the engine does it. Times are measured in `benchmarks/`.
"""

import math
from typing import NamedTuple

import jax
from flax import nnx
from rich.table import Table

from miras.config import to_dict
from miras.models import LanguageModel, LanguageModelConfig
from miras.presets import Preset
from miras.typing import Weights


class Costs(NamedTuple):
    """The size of a model and the price of a token.

    Attributes:
        parameters: trained numbers, the initial memories among them.
        state_bytes: what one sequence carries between calls, however long it is.
        flops: floating-point operations of one token's forward pass, a multiply-add counted as two.
    """

    parameters: int
    state_bytes: int
    flops: float


def costs(config: LanguageModelConfig) -> Costs:
    """Parameters, state and FLOPs of a model.

    The FLOPs are those of matrix products, which are nearly all: twice the size of every matrix
    that a token is multiplied by, plus the memories', see `memory_flops`. A training step costs
    three times as many, and once more where `remat` recomputes the forward pass.
    """
    model = nnx.eval_shape(lambda: LanguageModel(config, nnx.Rngs(0)))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    sizes = jax.tree.map(lambda leaf: leaf.size, params)
    total = sum(jax.tree.leaves(sizes))
    state = jax.eval_shape(lambda: LanguageModel(config, nnx.Rngs(0)).init_state(1))
    state_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))

    head = config.vocab * config.width
    embedding = 0 if config.tie else head  # looked up and not multiplied
    layers = total - sum(jax.tree.leaves(sizes["blocks"]["memory"]["memory"])) - embedding
    return Costs(
        parameters=total,
        state_bytes=state_bytes,
        flops=2 * layers + config.layers * memory_flops(config),
    )


def memory_flops(config: LanguageModelConfig) -> float:
    """FLOPs of one layer's memories for one token.

    With chunks of C tokens, for each head and each weight [in, out] that the inner loop writes:

        2 in out        x W at the snapshot, for the error
        2 in out        D W^T, the error's way back, but for the first weight
        2 in out        x W_0 in the read; again for S_0 with momentum
        2 C (in + out)  the read's product with the chunk's own writes, (x X^T) E
        2 in out        X^T E, the chunk's writes added up; again for each further state

    Momentum's coefficients add 2 C^2 per head. Where the link fires for every token, W_t is
    formed: 2 C in out for the sum of writes, and it is read by itself.
    """
    rule, chunk = config.rule, config.chunk
    width = config.width // config.heads
    weights: Weights = jax.eval_shape(lambda: rule.memory.init(jax.random.key(0), width, width))
    momentum = rule.algorithm.has_momentum
    flops = 2.0 * chunk**2 if momentum else 0.0
    first = True
    for name, leaf in weights.items():
        if name in rule.memory.fixed:
            continue
        size, sides = leaf.size, sum(leaf.shape)
        states = 1 + momentum + rule.reads_linearly
        flops += 2 * size * (1 if first else 2)
        if rule.links_every_token:
            flops += 2 * size * (chunk + 1)
        else:
            flops += 2 * size * (1 + momentum) + 2 * chunk * sides
        flops += 2 * size * states
        first = False
    return config.heads * flops


def table(preset: Preset, config: LanguageModelConfig) -> Table:
    """The description of a model for a terminal.

    Args:
        preset: where the config comes from.
        config: the preset's own, or one made from it.
    """
    found = costs(config)
    equation = preset.equation
    if config.rule != preset.build().rule:
        equation += "   (as the preset has it; its rule was changed)"
    rows = Table(title=f"{preset.name}: {preset.title}", show_header=False, box=None)
    rows.title_justify, rows.title_style = "left", "bold"
    for part, kind in config.rule.kinds().items():
        fields = {k: v for k, v in to_dict(getattr(config.rule, part)).items() if k != "kind"}
        rows.add_row(part, f"{kind}({', '.join(f'{k}={v}' for k, v in fields.items())})")
    rows.add_row("order", config.rule.order)
    rows.add_row("equation", equation)
    rows.add_row("source", preset.source)
    rows.add_row(
        "model",
        f"{config.layers} layers, width {config.width}, {config.heads} heads, chunk {config.chunk}",
    )
    rows.add_row("parameters", f"{found.parameters:,}")
    rows.add_row("state", f"{found.state_bytes:,} bytes per sequence, of any length")
    rows.add_row("FLOPs", f"{_round(found.flops)} per token forward")
    return rows


def _round(number: float) -> str:
    power = min(4, int(math.log10(max(number, 1)) // 3))
    return f"{number / 1000**power:.3g} {('', 'thousand', 'million', 'billion', 'trillion')[power]}"
