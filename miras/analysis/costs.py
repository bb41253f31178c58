"""The costs of a model, from shapes alone: nothing is computed or allocated.

The FLOPs are those of the engine's algorithm. `benchmarks/` measures times.
"""

from typing import NamedTuple

import jax
from flax import nnx

from miras.layers.head_sizes import head_sizes
from miras.models import LanguageModel, LanguageModelConfig

CONTEXT = 2048  # tokens that attention reads, for its FLOPs


class Costs(NamedTuple):
    """The size of a model and the cost of a token.

    Attributes:
        parameters: number of trained parameters, including initial memories.
        state_bytes: size of one sequence's state.
        growth_bytes: bytes that each token adds to the state; 0 without full attention.
        flops: FLOPs of one token's forward pass; a multiply-add counts as two.
    """

    parameters: int
    state_bytes: int
    growth_bytes: int
    flops: float


def costs(config: LanguageModelConfig, context: int = CONTEXT) -> Costs:
    """Parameters, state and FLOPs of a model, for a token after `context` others.

    Only matrix products are counted: twice the size of every matrix that a token is multiplied by,
    plus the FLOPs of mixers (`TokenMixer.flops`), and those of the first layer's values if other
    layers mix them with theirs (`first_values_flops`). A training step costs three times as
    many, or four times if `remat` recomputes the forward pass.
    """
    model = nnx.eval_shape(lambda: LanguageModel(config, nnx.Rngs(0)))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    total = sum(leaf.size for _, leaf in leaves)
    # Initial memories and persistent tokens are not projections; the embedding is a lookup.
    free = sum(leaf.size for path, leaf in leaves if _is_start(path))
    free += 0 if config.tie else config.vocab * config.width
    groups = config.layers // len(config.letters)
    return Costs(
        parameters=total,
        state_bytes=state_bytes(config),
        growth_bytes=config.growth_bytes,
        flops=2 * (total - free)
        + groups * sum(_mixer(config, x, context) for x in config.letters)
        + first_values_flops(config),
    )


def first_values_flops(config: LanguageModelConfig) -> float:
    """FLOPs of a token's values in the first layer, which a model with `value_residual` repeats."""
    if not config.value_residual:
        return 0.0
    block = config.block(config.letters[0])
    sizes = head_sizes(block.layer, config.width, block.heads or config.heads)
    return 2.0 * config.width * sizes.values * sizes.value


def state_bytes(config: LanguageModelConfig) -> int:
    """Bytes of one sequence's state before its first token."""
    state = jax.eval_shape(lambda: LanguageModel(config, nnx.Rngs(0)).init_state(1))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def _is_start(path) -> bool:
    names = {getattr(key, "key", None) for key in path}
    return bool(names & {"initial", "persistent"})


def _mixer(config: LanguageModelConfig, letter: str, context: int) -> float:
    """FLOPs of one token in the token mixer of a letter, without projections."""
    block = config.block(letter)
    return block.mixer.flops(block, config.width, block.heads or config.heads, context)
