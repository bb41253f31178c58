"""Functions of each token's logits that never need the logits of all tokens at once.

`over_tokens` gives every device of a mesh (`jax.set_mesh`) its own rows (axes data and fsdp), its
own part of each row (seq) and its own part of the vocabulary (tensor). `cut` and `loop` run over
chunks of a device's own tokens, and `token_logits` makes the logits of one chunk. Devices exchange
only sums over the vocabulary, one number per token.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from miras.array_typing import Array
from miras.parallel.shard import automatic_axes
from miras.parallel.table import TableSplit, split_table

_LOGITS = 2**25  # 128 MiB of float32
_TOKENS = 1024  # fewer make the product with a large head bound by memory traffic


class TokenLogits(NamedTuple):
    """Of each token [N]: nats, log Z, and over the device's vocabulary [N, V] logits and hits."""

    nats: Array
    log_z: Array
    logits: Array
    hit: Array


def chunks_of(tokens: int, vocab: int, chunk: int | None) -> int:
    """The number of chunks of equal size into which a device cuts its tokens.

    Args:
        tokens: of the device.
        vocab: tokens of the vocabulary that the device has.
        chunk: most tokens of a chunk; by default 1024, or as many as have 2**25 logits.
    """
    return math.ceil(tokens / (chunk or max(_TOKENS, _LOGITS // vocab)))


def over_tokens(
    run: Callable[..., Any],
    out: Callable[[TableSplit], Any],
    x: Array,
    head: Array,
    *by_token: Array,
) -> Any:
    """`run(x, head, *by_token, split=...)` of each device's own tokens and vocabulary.

    Args:
        run: writes every sum over devices out; `split` has the axes of the mesh for it.
        out: the `PartitionSpec` of each result.
        x: features [B, T, width].
        head: one row per token of the vocabulary, [V, width]; it is cast to the dtype of x.
        by_token: arrays [B, T].
    """
    head = head.astype(x.dtype)
    sizes = automatic_axes()
    if math.prod(sizes.values()) == 1:
        return run(x, head, *by_token, split=TableSplit())
    split = split_table(x.shape[:2], head.shape, sizes)
    rows = PartitionSpec(split.rows, split.time)
    return jax.shard_map(
        functools.partial(run, split=split),
        in_specs=(rows, PartitionSpec(split.vocab), *(rows,) * len(by_token)),
        out_specs=out(split),
        axis_names=set(sizes),
        check_vma=False,  # every sum over devices is written out in `run`
    )(x, head, *by_token)


def token_logits(x: Array, head: Array, targets: Array, axes: tuple[str, ...]) -> TokenLogits:
    """The logits of tokens.

    Args:
        x: features [N, width].
        head: the device's rows of the head, [V, width].
        targets: [N] int, in the whole vocabulary.
        axes: the mesh axes that split the vocabulary.
    """
    dtype = jnp.promote_types(jnp.float32, x.dtype)
    logits = jax.lax.dot_general(x, head, (((1,), (1,)), ((), ())), preferred_element_type=dtype)
    first = first_row(head, axes)
    # A comparison and not a gather, which would need the logits of the whole vocabulary.
    hit = jax.lax.broadcasted_iota(targets.dtype, logits.shape, 1) == (targets - first)[:, None]
    over = functools.partial(jax.lax.psum, axis_name=axes) if axes else lambda x: x
    top = jnp.max(logits, axis=1)
    top = jax.lax.pmax(top, axes) if axes else top
    log_z = top + jnp.log(over(jnp.sum(jnp.exp(logits - top[:, None]), axis=1)))
    return TokenLogits(log_z - over(jnp.sum(logits, axis=1, where=hit)), log_z, logits, hit)


def first_row(head: Array, axes: tuple[str, ...]) -> Array | int:
    """The token of the device's first row of the head [V, width]."""
    return jax.lax.axis_index(axes) * head.shape[0] if axes else 0


def cut(chunk: int | None, vocab: int, *by_token: Array) -> tuple[Array, ...]:
    """Arrays [B, T, ...] as chunks [n, tokens, ...]; zeros fill the last one.

    Args:
        chunk: see `chunks_of`.
        vocab: tokens of the vocabulary that the device has.
        by_token: the arrays.
    """
    tokens = math.prod(by_token[0].shape[:2])
    number = chunks_of(tokens, vocab, chunk)
    size = math.ceil(tokens / number)

    def one(array: Array) -> Array:
        array = array.reshape(tokens, *array.shape[2:])
        fill = [(0, number * size - tokens)] + [(0, 0)] * (array.ndim - 1)
        return jnp.pad(array, fill).reshape(number, size, *array.shape[1:])

    return tuple(map(one, by_token))


def restore(chunks: Array, shape: tuple[int, ...]) -> Array:
    """Chunks of `cut`, of which `loop` leaves a single one bare, as one array [B, T, ...]."""
    rest = shape[2:]
    return chunks.reshape(-1, *rest)[: math.prod(shape[:2])].reshape(shape)


def loop(body: Callable[..., Any], start: Any, chunks: tuple[Array, ...]) -> Any:
    """`lax.scan`, without a loop for one chunk."""
    if chunks[0].shape[0] > 1:
        return jax.lax.scan(body, start, chunks)
    return body(start, tuple(chunk[0] for chunk in chunks))
