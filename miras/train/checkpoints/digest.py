"""Digests of the training state, by which a checkpoint is verified when it is read.

Orbax stores arrays without a checksum, so a flipped bit on the disk would change a number
unnoticed. The digest of an array is two sums over its elements,

    s_k = sum_i mix(bits(x_i) xor mix(i + seed_k))  mod 2**32,     k = 1, 2,

where i is the position of the element in the whole array and mix is a bijection of 32-bit words
(the finaliser of MurmurHash3). Sums of integers do not depend on their order, so a digest depends
neither on the mesh nor on the number of processes. If one element changes, both sums change, since
mix is a bijection; if elements are permuted, both sums stay the same with probability 2**-64.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from miras.array_typing import Array

_SEEDS = (0x9E3779B9, 0x7F4A7C15)


def digest(tree: Any) -> dict[str, str]:
    """The digest of every leaf of a pytree of arrays: 16 hex digits by path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    # One at a time: collectives of several programs may run in another order in each process.
    sums = [jax.device_get(_sums_of(leaf)) for _, leaf in leaves]
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): "".join(f"{s:08x}" for s in pair)
        for (path, _), pair in zip(leaves, sums)
    }


def _sums_of(array: Array) -> Array:
    """The two sums, on every device of a mesh, so that every process can read them."""
    found: Any = getattr(array, "sharding", None)
    several = isinstance(found, NamedSharding)
    return _compiled_sums(NamedSharding(found.mesh, PartitionSpec()) if several else None)(array)


@functools.cache
def _compiled_sums(where: NamedSharding | None) -> Callable[[Array], Array]:
    return jax.jit(_sums, out_shardings=where)


def _sums(array: Array) -> Array:
    """The two sums, uint32 [2]."""
    words = _words(array)
    position, stride = jnp.zeros(words.shape, jnp.uint32), 1
    for axis in reversed(range(words.ndim)):
        along = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        position += along * jnp.uint32(stride % 2**32)
        stride *= words.shape[axis]
    return jnp.stack(
        [
            jnp.sum(_mix(words ^ _mix(position + jnp.uint32(seed))), dtype=jnp.uint32)
            for seed in _SEEDS
        ]
    )


def _words(array: Array) -> Array:
    """The bits of an array as uint32: one per element, or a last axis of two for 64 bits."""
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        return _words(jax.random.key_data(array))
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        return _words(jnp.stack([array.real, array.imag], axis=-1))
    if array.dtype.itemsize == 8:
        return jax.lax.bitcast_convert_type(array, jnp.uint32)
    if jnp.issubdtype(array.dtype, jnp.floating):
        bits = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[array.dtype.itemsize]
        array = jax.lax.bitcast_convert_type(array, bits)
    return array.astype(jnp.uint32)


def _mix(words: Array) -> Array:
    """MurmurHash3's finaliser, a bijection of uint32 (Appleby, 2011)."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        words = (words ^ (words >> jnp.uint32(shift))) * jnp.uint32(factor)
    return words ^ (words >> jnp.uint32(16))
