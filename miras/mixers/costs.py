"""FLOPs and bytes of a token in memories and in attention, from shapes alone."""

import math
from typing import NamedTuple

import jax

from miras.array_typing import Weights
from miras.layers.config import LayerConfig
from miras.layers.head_sizes import head_widths
from miras.rule.options import ScanOptions
from miras.rule.rule import Rule


def attention_flops(width: float, seen: float) -> float:
    """FLOPs of scores and sums over `seen` tokens, for one token of one layer."""
    return 4.0 * width * seen


def cached_bytes(width: int, itemsize: int) -> int:
    """Bytes that attention keeps of a token: k and v of this width, a flag and a segment."""
    return 2 * width * itemsize + 5


def weights_of(rule: Rule, head: int, value: int | None = None) -> Weights:
    """The shapes of the weights of one head, of the width of its keys and that of its values.

    The width of the values is that of the keys if not given.
    """
    return jax.eval_shape(lambda: rule.memory.init(jax.random.key(0), head, value or head))


class MemoryFlops(NamedTuple):
    """FLOPs of one layer's memories for one token.

    Attributes:
        update: of the gradients and of the chunk's writes.
        read: of the read.
    """

    update: float
    read: float


def memory_flops(
    rule: Rule, options: ScanOptions, layer: LayerConfig, width: int, heads: int, context: int
) -> float:
    """FLOPs of one layer's memories for one token.

    With chunks of C tokens, for each head and each weight [in, out] that the inner loop writes:

        2 in out        x W at the snapshot, for the error
        2 in out        D W^T, backpropagation of the error, except for the first weight
        2 in out        x W_0 in the read; again for S_0 with momentum
        2 C (in + out)  the read's product with the chunk's own writes, (x X^T) E
        2 in out        X^T E, the sum of the chunk's writes; again for each further state

    Each sweep of `refine` repeats the first two; each term of a token repeats all of them, and each
    of its reads those of the read.
    `exact` replaces them by the products of a read and a triangular system. Momentum's coefficients
    add 2 C^2 per head. If W_t is formed for every token, the products of the read and of the sum
    cost 2 in out each. Attention reads `context` tokens, or its window.

    Args:
        rule: the four parts.
        options: chunk, refine and exact.
        layer: how tokens become keys.
        width: of the tokens.
        heads: H, each of width / heads; there are `layer.memories(heads)` memories.
        context: number of tokens before it.
    """
    cache = rule.memory.token_cache
    if cache is not None:
        seen = min(context, cache.window or context) + cache.persistent
        return attention_flops(heads * sum(head_widths(layer, width, heads)) / 2, seen)
    return sum(update_and_read_flops(rule, options, layer, width, heads))


def update_and_read_flops(
    rule: Rule,
    options: ScanOptions,
    layer: LayerConfig,
    width: int,
    heads: int,
    *,
    multiple: int = 1,
) -> MemoryFlops:
    """The two parts of `memory_flops`, for a rule that is no attention.

    Args:
        rule: as for `memory_flops`, and so on.
        options: chunk, refine and exact.
        layer: how tokens become keys.
        width: of the tokens.
        heads: H.
        multiple: to which every dimension of a product is rounded up, as matrix units do.
    """

    def up(size: int) -> int:
        return -(-size // multiple) * multiple

    chunk = up(options.chunk)
    weights = weights_of(rule, *head_widths(layer, width, heads))
    written = {name: leaf for name, leaf in weights.items() if name not in rule.memory.fixed}
    terms = (layer.terms(rule) or rule.algorithm.terms) * rule.association_count
    window = (
        1 + (rule.algorithm.window - 1) / options.chunk
    )  # tokens whose gradients are taken anew
    momentum = "S" in rule.algorithm.keeps
    update, read = 2.0 * chunk**2 if momentum else 0.0, 0.0
    for i, leaf in enumerate(sorted(written.values(), key=lambda leaf: -leaf.ndim)):
        shape = tuple(map(up, leaf.shape)) if leaf.ndim > 1 else leaf.shape
        size, sides = math.prod(shape), sum(shape)
        products = 2 * chunk * sides * terms
        gradient = 2 * size * (1 if i == 0 else 2) * terms
        if options.exact:
            gradient = 2 * size * terms + products + _triangular(rule, chunk * terms, shape) / chunk
        writes, answered = _write_and_read(rule, size, products * (options.refine + 1))
        # X^T E contracts over the tokens of a chunk, and has the rows of its smaller form.
        smaller = min(size // up(n) * n for n in leaf.shape) if leaf.ndim > 1 else size
        writes *= smaller / size * chunk / options.chunk
        update += gradient * (options.refine + 1) * window + writes
        update += rule.algorithm.flops(leaf.shape, chunk)
        read += layer.mimo * answered
    return MemoryFlops(layer.memories(heads) * update, heads * read)


def _triangular(rule: Rule, size: int, shape: tuple[int, ...]) -> float:
    """The inverse of a chunk's [size, size] system and its product, or a substitution by column."""
    product = 2.0 * size**2 * shape[-1]
    by_column = any(gate.side == "value" for gate in rule.gates)
    return product if by_column else product + 4.0 * size**3 * max(0, (size - 1).bit_length() - 1)


def _write_and_read(rule: Rule, size: int, products: float) -> tuple[float, float]:
    if rule.forms_weights:
        return 2.0 * size, 2.0 * size
    momentum = "S" in rule.algorithm.keeps
    states = 1 + momentum + rule.reads_linearly
    if rule.read == "snapshot":
        return 2.0 * size * states, 2.0 * size
    return 2.0 * size * states, 2.0 * size * (1 + momentum) + products
