"""lookup: the vectors of tokens, from a table that devices may split.

    x_t = E[token_t],        dE[j] = sum over t of [token_t = j] dx_t

Devices gather the table over `fsdp`, in the dtype of x, and not the vectors of all of their tokens.
Each adds up the gradient of its own tokens in the dtype of E and receives its part of the sum.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike

from miras.array_typing import Array
from miras.parallel.shard import automatic_axes
from miras.parallel.table import TableSplit, split_table, sum_over, sum_over_tokens


def lookup(table: Array, tokens: Array, dtype: DTypeLike) -> Array:
    """The vectors [B, T, width], of a dtype, of tokens [B, T] int in a table [V, width].

    On a mesh the gradient is written out, so that `jax.jvp` and `jax.jacfwd` raise a TypeError.
    """
    if math.prod(automatic_axes().values()) == 1:
        return table[tokens].astype(dtype)
    return _on_mesh(table, tokens, dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _on_mesh(table: Array, tokens: Array, dtype: DTypeLike) -> Array:
    sizes = automatic_axes()
    split = split_table(tokens.shape, table.shape, sizes)
    at_tokens = PartitionSpec(split.rows, split.time)

    def of_device(table: Array, tokens: Array) -> Array:
        at, own = _places(tokens, table.shape[0], split)
        x = table[at]
        return sum_over(jnp.where(own[..., None], x, 0), split.vocab) if split.vocab else x

    return jax.shard_map(
        of_device,
        in_specs=(PartitionSpec(split.vocab), at_tokens),
        out_specs=at_tokens,
        axis_names=set(sizes),
        check_vma=False,  # sums over devices are written out
    )(table.astype(dtype), tokens)


def _forward(table: Array, tokens: Array, dtype: DTypeLike):
    return _on_mesh(table, tokens, dtype), (tokens, jax.ShapeDtypeStruct(table.shape, table.dtype))


def _backward(dtype: DTypeLike, residuals: Any, dx: Array) -> tuple[Array, None]:
    del dtype
    tokens, table = residuals
    sizes = automatic_axes()
    split = split_table(tokens.shape, table.shape, sizes)
    at_tokens = PartitionSpec(split.rows, split.time)
    vocab = table.shape[0] // math.prod(sizes[axis] for axis in split.vocab)

    def of_device(tokens: Array, dx: Array) -> Array:
        at, own = _places(tokens, vocab, split)
        dx = jnp.where(own[..., None], dx, 0).astype(table.dtype)
        gradient = jnp.zeros((vocab, dx.shape[-1]), table.dtype).at[at].add(dx)
        return sum_over_tokens(gradient, split)

    gradient = jax.shard_map(
        of_device,
        in_specs=(at_tokens, at_tokens),
        out_specs=PartitionSpec(split.vocab, split.width),
        axis_names=set(sizes),
        check_vma=False,
    )(tokens, dx)
    return gradient, None


_on_mesh.defvjp(_forward, _backward)


def _places(tokens: Array, vocab: int, split: TableSplit) -> tuple[Array, Array]:
    """Where a device's `vocab` rows of the table hold tokens, and which tokens these rows have."""
    first = jax.lax.axis_index(split.vocab) * vocab if split.vocab else 0
    at = tokens - first
    return jnp.clip(at, 0, vocab - 1), (at >= 0) & (at < vocab)
