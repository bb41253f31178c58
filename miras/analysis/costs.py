"""The costs of a model, from shapes alone: nothing is computed or allocated.

The FLOPs are those of the engine's algorithm. `benchmarks/` measures times.
"""

from typing import NamedTuple

import jax
from flax import nnx

from miras.array_typing import Weights
from miras.models import LanguageModel, LanguageModelConfig
from miras.rule.rule import Rule

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
    plus the FLOPs of memories (`memory_flops`). A training step costs three times as many, or four
    times if `remat` recomputes the forward pass.
    """
    model = nnx.eval_shape(lambda: LanguageModel(config, nnx.Rngs(0)))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    total = sum(leaf.size for _, leaf in leaves)
    # Initial memories and persistent tokens are not projections; the embedding is a lookup.
    free = sum(leaf.size for path, leaf in leaves if _is_start(path))
    free += 0 if config.tie else config.vocab * config.width
    state = jax.eval_shape(lambda: LanguageModel(config, nnx.Rngs(0)).init_state(1))
    groups = config.layers // len(config.letters)
    return Costs(
        parameters=total,
        state_bytes=sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)),
        growth_bytes=config.growth_bytes,
        flops=2 * (total - free) + groups * sum(_mixer(config, x, context) for x in config.letters),
    )


def _is_start(path) -> bool:
    names = {getattr(key, "key", None) for key in path}
    return bool(names & {"initial", "persistent"})


def _mixer(config: LanguageModelConfig, letter: str, context: int) -> float:
    """FLOPs of one token in the memory and the attention of a layer, without projections."""
    attention = config.attention
    seen = min(context, attention.window) + attention.persistent
    if letter == "A":
        seen = context + attention.persistent
    if letter != "M":
        return attention_flops(config, seen)
    flops = memory_flops(config, context)
    if config.architecture == "mac":  # of h and of x, half a segment on average, and a retrieval
        halfway = min(attention.window, (attention.segment + 1) / 2)
        reads = config.heads * sum(leaf.size for leaf in _weights(config).values())
        return flops + attention_flops(config, 2 * halfway + attention.persistent) + 2.0 * reads
    return flops + (attention_flops(config, seen) if config.architecture != "lmm" else 0.0)


def attention_flops(config: LanguageModelConfig, seen: float) -> float:
    """FLOPs of scores and sums over `seen` tokens, for one token of one layer."""
    return 4.0 * config.width * seen


def _weights(config: LanguageModelConfig) -> Weights:
    """The shapes of one head's weights."""
    width = config.width // config.heads
    return jax.eval_shape(lambda: config.rule.memory.init(jax.random.key(0), width, width))


def memory_flops(config: LanguageModelConfig, context: int = CONTEXT) -> float:
    """FLOPs of one layer's memories for one token.

    With chunks of C tokens, for each head and each weight [in, out] that the inner loop writes:

        2 in out        x W at the snapshot, for the error
        2 in out        D W^T, backpropagation of the error, except for the first weight
        2 in out        x W_0 in the read; again for S_0 with momentum
        2 C (in + out)  the read's product with the chunk's own writes, (x X^T) E
        2 in out        X^T E, the sum of the chunk's writes; again for each further state

    Each sweep of `refine` repeats the first two; each term of a token repeats all of them.
    `exact` replaces them by the products of a read and a triangular system. Momentum's coefficients
    add 2 C^2 per head. If W_t is formed for every token, the products of the read and of the sum
    cost 2 in out each. Attention reads `context` tokens, or its window.
    """
    rule, chunk = config.rule, config.chunk
    cache = rule.memory.token_cache
    if cache is not None:
        seen = min(context, cache.window or context) + cache.persistent
        return attention_flops(config, seen)
    weights = _weights(config)
    written = {name: leaf for name, leaf in weights.items() if name not in rule.memory.fixed}
    terms = config.layer.terms(rule) or rule.algorithm.terms
    window = (chunk + rule.algorithm.window - 1) / chunk  # tokens whose gradients are taken anew
    momentum = "S" in rule.algorithm.keeps
    flops = 2.0 * chunk**2 if momentum else 0.0
    for i, leaf in enumerate(sorted(written.values(), key=lambda leaf: -leaf.ndim)):
        size, sides = leaf.size, sum(leaf.shape)
        products = 2 * chunk * sides * terms
        gradient = 2 * size * (1 if i == 0 else 2) * terms
        if config.exact:
            gradient = (
                2 * size * terms + products + _triangular(rule, chunk * terms, leaf.shape) / chunk
            )
        flops += gradient * (config.refine + 1) * window
        flops += _read_and_write(rule, size, products * (config.refine + 1))
        flops += rule.algorithm.flops(leaf.shape, chunk)
    return config.heads * flops


def _triangular(rule: Rule, size: int, shape: tuple[int, ...]) -> float:
    """The inverse of a chunk's [size, size] system and its product, or a substitution by column."""
    product = 2.0 * size**2 * shape[-1]
    by_column = any(gate.side == "value" for gate in rule.gates)
    return product if by_column else product + 4.0 * size**3 * max(0, (size - 1).bit_length() - 1)


def _read_and_write(rule: Rule, size: int, products: float) -> float:
    if rule.forms_weights:
        return 4.0 * size
    momentum = "S" in rule.algorithm.keeps
    states = 1 + momentum + rule.reads_linearly
    if rule.read == "snapshot":
        return 2.0 * size * (1 + states)
    return 2.0 * size * (1 + momentum) + products + 2.0 * size * states
