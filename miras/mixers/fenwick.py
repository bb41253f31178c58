"""Levels of a Fenwick tree: which of L memories holds a token, when a later one reads.

Tokens of a document are counted from 0. Token t finds itself at level 0, and an earlier token s at
the level of the highest bit in which s and t differ,

    level(t, s) = bit_length(t xor s),    at most L - 1

so that level l > 0 holds the 2^(l-1) tokens, or none, of a block of t's binary expansion. After n
tokens, memory j = 0 .. L - 2 is that of level j + 1 for the tokens before n.
"""

import jax
import jax.numpy as jnp

from miras.array_typing import Array


def bit_length(n: Array) -> Array:
    """Bits of whole numbers n >= 0, as `int.bit_length`."""
    return 32 - jax.lax.clz(n.astype(jnp.int32))


def level_of_token(t: Array, s: Array, levels: int) -> Array:
    """The level at which token t reads token s <= t."""
    return jnp.minimum(bit_length(t ^ s), levels - 1)


def level_of_memory(t: Array, j: Array, before: Array, levels: int) -> Array:
    """The level at which token t >= before reads memory j, as it was after `before` tokens.

    Its tokens agree with `before` above bit j, in which they differ: they stay at level j + 1
    until t differs from `before` above that bit.
    """
    return jnp.minimum(jnp.maximum(j + 1, bit_length(t ^ before)), levels - 1)
